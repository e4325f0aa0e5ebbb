"""Where frames of the debug display go: a window, PNG files, or DS9."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from psfmatch.errors import InputError
from psfmatch.geometry import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DS9", "Files", "Frame", "Region", "Screen", "Window", "screen_for"]

log = logging.getLogger("psfmatch.display")
Region = tuple[float, float, str, str]
"""Column, row (from 0, in the image's own pixels), colour and text of a circle."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: as a figure, and, where it is one, as an image with circles and a mask on it."""

    title: str
    figure: Callable[[], Figure]
    image: FloatArray | None = None
    mask: Any = None
    mask_transparency: float = 0.0
    regions: Sequence[Region] = ()


class Screen(ABC):
    """Shows frames."""

    @abstractmethod
    def show(self, frame: Frame, number: int) -> None:
        """Show a frame, under this number."""

    def done(self) -> None:  # noqa: B027
        """All frames of a match are shown."""


@dataclass
class Files(Screen):
    """``debug-<number>-<title>.png`` in a folder."""

    folder: Path = field(default_factory=Path)

    def show(self, frame: Frame, number: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"debug-{number:02d}-{re.sub('[^a-z0-9]+', '-', frame.title.lower())}.png"
        frame.figure().savefig(path, dpi=150)
        log.warning("frame %d, %s: %s", number, frame.title, path)


@dataclass
class Window(Screen):
    """A matplotlib window a frame; `done` waits until they are closed."""

    _managers: list[Any] = field(default_factory=list)

    def show(self, frame: Frame, number: int) -> None:
        figure = frame.figure()
        manager = _canvas_class().new_manager(figure, number)
        manager.set_window_title(f"{number}: {frame.title}")
        manager.show()
        self._managers.append(manager)

    def done(self) -> None:
        if self._managers:
            type(self._managers[0]).start_main_loop()
        self._managers.clear()


@dataclass
class DS9(Screen):
    """Frames of a running DS9, through SAMP or XPA; what is no image goes to files.

    Parameters
    ----------
    command : callable
        Sends one command, in the language of XPA.
    otherwise : Screen
        For figures.
    """

    command: Callable[[str], None]
    otherwise: Screen
    _folder: Path | None = None

    def show(self, frame: Frame, number: int) -> None:
        if frame.image is None:
            self.otherwise.show(frame, number)
            return
        from astropy.io import fits

        if self._folder is None:  # stays: DS9 may read the files again
            self._folder = Path(tempfile.mkdtemp(prefix="psfmatch-ds9-"))
        path = self._folder / f"{number}.fits"
        header = fits.Header({"OBJECT": frame.title[:60]})
        fits.PrimaryHDU(np.asarray(frame.image, np.float32), header).writeto(path, overwrite=True)
        commands = [f"frame {number}", f"fits {path}", "scale zscale", "zoom to fit"]
        if frame.mask is not None:
            under = self._folder / f"{number}-mask.fits"
            fits.PrimaryHDU((np.asarray(frame.mask) != 0).astype(np.uint8)).writeto(under, overwrite=True)
            commands += ["mask color red", f"mask transparency {frame.mask_transparency:g}", f"fits mask {under}"]
        if frame.regions:
            regions = self._folder / f"{number}.reg"
            lines = [f"circle({x + 1:.2f},{y + 1:.2f},12) # color={c} text={{{t}}}" for x, y, c, t in frame.regions]
            regions.write_text("\n".join(["image", *lines]) + "\n", encoding="utf-8")
            commands.append(f"regions load {regions}")
        for command in commands:
            self.command(command)
        log.warning("frame %d, %s: in DS9", number, frame.title)

    def done(self) -> None:
        if isinstance(self.command, Samp):
            self.command.close()
        self.otherwise.done()


def screen_for(where: bool | str, folder: Path | None = None) -> Screen:
    """The screen that is asked for; else DS9 where one runs, a window where there is a screen, and files otherwise.

    Parameters
    ----------
    where : bool or str
        ``window``, ``files``, ``ds9``, or True.
    folder : path, optional
        For files; default the current one.

    Raises
    ------
    InputError
        If there is no such screen.
    """
    files = Files(Path() if folder is None else folder)
    if where not in (True, 1, "window", "files", "ds9"):
        raise InputError(f"display = {where!r} in debug.py: give True, 'window', 'files' or 'ds9'")
    if where == "files":
        return files
    if where in (True, 1, "ds9"):
        command = samp_command() or xpa_command()
        if command is not None:
            return DS9(command, files)
        if where == "ds9":
            raise InputError("display = 'ds9' in debug.py, but no DS9 answers through SAMP or XPA: start it first")
    if has_window():
        return Window()
    if where == "window":
        raise InputError("display = 'window' in debug.py, but there is no screen: take 'files', or set DISPLAY")
    return files


def has_window() -> bool:
    """Whether matplotlib can open one."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    return _canvas_class().required_interactive_framework is not None


def _canvas_class() -> Any:
    """The canvas of the backend that matplotlib chooses."""
    import matplotlib.pyplot as plt

    figure = plt.figure()
    canvas = type(figure.canvas)
    plt.close(figure)
    return canvas


def samp_command() -> Samp | None:
    """How to send a command to a DS9 that a SAMP hub knows; None where there is no hub, or no DS9."""
    client = _samp_client()
    if client is None:
        return None
    try:
        client.connect()
        found = list(client.get_subscribed_clients("ds9.set"))
    except Exception as error:  # a hub that has died leaves its lock file behind
        log.info("no SAMP hub: %s", error)
        return None
    if not found:
        client.disconnect()
        return None
    return Samp(client, found[0])


@dataclass
class Samp:
    """Sends commands to one client of a SAMP hub."""

    client: Any
    receiver: str

    def __call__(self, text: str) -> None:
        answer = self.client.ecall_and_wait(self.receiver, "ds9.set", "20", cmd=text)
        if answer.get("samp.status") != "samp.ok":
            raise InputError(f"DS9 does not take {text!r}: {answer.get('samp.error', {}).get('samp.errortxt', '')}")

    def close(self) -> None:
        """Leave the hub."""
        if self.client.is_connected:
            self.client.disconnect()


def _samp_client() -> Any:
    """pyvo's or astropy's client; newer releases of astropy refer to the former."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from pyvo.samp import SAMPIntegratedClient  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            try:
                from astropy.samp import SAMPIntegratedClient
            except ImportError:
                return None
    return SAMPIntegratedClient(name="psfmatch", description="debug display of psfmatch")


def xpa_command() -> Callable[[str], None] | None:
    """How to send a command to a DS9 through the XPA programs; None where they or DS9 are missing."""
    if shutil.which("xpaaccess") is None or shutil.which("xpaset") is None:
        return None
    answer = subprocess.run(["xpaaccess", "ds9"], capture_output=True, text=True, timeout=10, check=False)
    if answer.stdout.strip() != "yes":
        return None
    return lambda text: _xpaset(text)


def _xpaset(text: str) -> None:
    done = subprocess.run(
        ["xpaset", "-p", "ds9", *text.split()], capture_output=True, text=True, timeout=20, check=False
    )
    if done.returncode:
        raise InputError(f"DS9 does not take {text!r}: {done.stderr.strip()}")
