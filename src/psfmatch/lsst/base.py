"""``Task`` and ``Struct``: those of ``lsst.pipe.base`` where it is installed, else what is needed of them here."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

__all__ = ["PIPE_BASE", "Struct", "Task"]

if TYPE_CHECKING:
    PIPE_BASE: bool
else:
    try:
        from lsst.pipe.base import Struct, Task

        PIPE_BASE = True
    except ImportError:
        PIPE_BASE = False

if TYPE_CHECKING or not PIPE_BASE:

    class Struct(SimpleNamespace):
        """Results by name."""

        def getDict(self) -> dict[str, Any]:
            """The same as a dictionary."""
            return dict(vars(self))

    class Task:
        """Something with a configuration, a name, a log and metadata."""

        ConfigClass: ClassVar[type]
        _DefaultName: ClassVar[str]

        def __init__(
            self,
            config: Any = None,
            *,
            name: str | None = None,
            parentTask: Task | None = None,
            log: logging.Logger | None = None,
        ) -> None:
            if parentTask is not None:
                raise TypeError("subtasks need lsst.pipe.base")
            self.config: Any = self.ConfigClass() if config is None else config
            self.config.validate()
            self.metadata: dict[str, Any] = {}
            self._name = name or self._DefaultName
            self.log = (logging.getLogger() if log is None else log).getChild(self._name)

        def getName(self) -> str:
            """The name of the task."""
            return self._name

        def _reduce_kwargs(self) -> dict[str, Any]:
            return {"config": self.config, "name": self._name}
