"""The debug display: what ``debug.py`` asks to see of a match, in a window, in files, or in DS9.

``debug.py`` is written as for Rubin's task: it replaces ``lsstDebug.Info`` by a function that is given the name of a
module and returns an object with the debug variables.  See `psfmatch.display.settings` for the variables, and
`psfmatch.display.screens` for where the frames go.
"""

from psfmatch.display.frames import show
from psfmatch.display.screens import DS9, Files, Screen, Window, screen_for
from psfmatch.display.settings import DebugSettings, load_debug

__all__ = ["DS9", "DebugSettings", "Files", "Screen", "Window", "load_debug", "screen_for", "show"]
