"""The errors of psfmatch, and which to raise.

::

    Exception
    └── PsfMatchError
        ├── InputError (ValueError)      what the caller gave is wrong; say which value and the cure
        │   ├── FormatError              a file cannot be understood; say which file
        │   └── PSFError                 a PSF cannot be used, or not be evaluated at a position
        └── MatchError (RuntimeError)    the input is fine, but no acceptable kernel was found

    UserWarning
    └── PsfMatchWarning                  the work went on, but not quite as asked

A missing file is Python's own ``FileNotFoundError``, an existing output its ``FileExistsError``.  An error
raised by a third party while a file is read is chained to a `FormatError` that names the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psfmatch.solve import Solution

__all__ = ["FormatError", "InputError", "MatchError", "PSFError", "PsfMatchError", "PsfMatchWarning", "check_type"]


class PsfMatchError(Exception):
    """Whatever psfmatch raises on purpose."""


class InputError(PsfMatchError, ValueError):
    """An argument, array or option is wrong."""


class FormatError(InputError):
    """A file is damaged, or not of a kind that psfmatch reads."""


class PSFError(InputError):
    """A PSF model is unusable, or cannot be evaluated at a position."""


class MatchError(PsfMatchError, RuntimeError):
    """No acceptable matching kernel.

    Parameters
    ----------
    message : str
        What went wrong, and the cure.
    solution : Solution, optional
        What was found, where something was; an attribute of that name.
    """

    def __init__(self, message: str, solution: Solution | None = None) -> None:
        super().__init__(message)
        self.solution = solution


class PsfMatchWarning(UserWarning):
    """The work went on, but not quite as asked."""


def check_type(value: object, kind: type, what: str, cure: str) -> None:
    """Raise `InputError` unless the value is of this class."""
    if not isinstance(value, kind):
        raise InputError(f"{what} of type {type(value).__name__}: give {cure}")
