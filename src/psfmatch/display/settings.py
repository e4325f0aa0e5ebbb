"""What ``debug.py`` asks for, under the names of Rubin's tasks.

=======================  ===========================================================================================
variable                 what is shown
=======================  ===========================================================================================
display                  anything at all; ``"window"``, ``"files"`` or ``"ds9"`` say where, ``True`` what is there
maskTransparency         of the mask on the image, in percent (0: opaque)
displaySpatialCells      the cells and their candidates on the image
displayCandidates        three frames: the candidates' PSFs, kernels and residuals
displayKernelBasis       the basis images (and, as a figure, their weights)
displayKernelMosaic      the kernel over the field
plotKernelSpatialModel   the weights along x and y, of the model and of each candidate alone
plotKernelCoefficients   histograms of the same
showBadCandidates        rejected candidates too
=======================  ===========================================================================================

They are read for the names ``lsst.ip.diffim.modelPsfMatch``, ``lsst.ip.diffim.psfMatch`` and ``psfmatch``, and count
where ``display`` is set for the same name.
"""

from __future__ import annotations

import importlib
import sys
import types
from dataclasses import dataclass
from typing import Any

from psfmatch.errors import InputError

__all__ = ["NAMES", "DebugSettings", "load_debug"]

NAMES = ("lsst.ip.diffim.modelPsfMatch", "lsst.ip.diffim.psfMatch", "psfmatch")
EXAMPLE = """
import lsstDebug

def DebugInfo(name):
    di = lsstDebug.getInfo(name)
    if name == "lsst.ip.diffim.psfMatch":
        di.display = True
        di.displayCandidates = True
        di.displayKernelMosaic = True
    return di

lsstDebug.Info = DebugInfo
lsstDebug.frame = 1"""


class Info:
    """Debug variables by name; those that nobody has set are False."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, variable: str) -> Any:
        if variable.startswith("__"):
            raise AttributeError(variable)
        return False


@dataclass(frozen=True)
class DebugSettings:
    """The variables of the table above; all False where there is no ``debug.py``."""

    display: bool | str = False
    maskTransparency: float = 0.0
    displaySpatialCells: bool = False
    displayCandidates: bool = False
    displayKernelBasis: bool = False
    displayKernelMosaic: bool = False
    plotKernelSpatialModel: bool = False
    plotKernelCoefficients: bool = False
    showBadCandidates: bool = False

    @classmethod
    def now(cls) -> DebugSettings:
        """What the loaded ``debug.py`` asks for at this moment."""
        module = sys.modules.get("lsstDebug")
        found: dict[str, Any] = {}
        for name in NAMES if module is not None else ():
            info = module.Info(name)  # type: ignore[union-attr]
            if not getattr(info, "display", False):
                continue
            for variable in cls.__dataclass_fields__:
                value = getattr(info, variable, False)
                if value and not found.get(variable):
                    found[variable] = value
        return cls(**found)

    @property
    def anything(self) -> bool:
        """Whether anything is to be shown."""
        asked = ("displaySpatialCells", "displayCandidates", "displayKernelBasis", "displayKernelMosaic",
                 "plotKernelSpatialModel", "plotKernelCoefficients")  # fmt: skip
        return bool(self.display) and any(getattr(self, name) for name in asked)


def next_frame() -> int:
    """The number of the next frame; ``lsstDebug.frame`` counts on."""
    module = sys.modules["lsstDebug"]
    frame = int(getattr(module, "frame", None) or 1)
    module.frame = frame + 1  # type: ignore[attr-defined]
    return frame


def load_debug() -> None:
    """Import ``debug.py`` from the Python path, which sets what is shown; `DebugSettings.now` reads it.

    Where Rubin's ``lsstDebug`` is not installed, a module of this name with the same interface takes its place.

    Raises
    ------
    InputError
        If there is no ``debug.py``, or it fails.
    """
    try:
        importlib.import_module("lsstDebug")
    except ImportError:
        sys.modules["lsstDebug"] = _lsst_debug()
    sys.modules.pop("debug", None)
    try:
        importlib.import_module("debug")
    except ModuleNotFoundError as error:
        if error.name != "debug":
            raise InputError(f"debug.py needs the module {error.name}, which is not installed") from error
        raise InputError(
            "--debug: there is no debug.py on the Python path. Write one such as this, and set PYTHONPATH to its "
            f"folder:{EXAMPLE}"
        ) from error
    except Exception as error:
        raise InputError(f"debug.py fails: {type(error).__name__}: {error}") from error


def _lsst_debug() -> types.ModuleType:
    """A stand-in for Rubin's module."""
    module = types.ModuleType("lsstDebug", "Debug variables, as Rubin's module of this name has them.")
    vars(module).update(Info=Info, getInfo=Info, frame=1)
    return module
