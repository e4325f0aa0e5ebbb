"""The command line: one verb a file, each as thin as the function behind it.

Nothing heavier than click is imported before a verb runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import click

from psfmatch.cli.apply import apply
from psfmatch.cli.check import check
from psfmatch.cli.coadd import coadd
from psfmatch.cli.config import config
from psfmatch.cli.demo import demo
from psfmatch.cli.inspect import inspect
from psfmatch.cli.kernel import kernel
from psfmatch.cli.match import match
from psfmatch.cli.plot import plot
from psfmatch.cli.report import report
from psfmatch.cli.target import target

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="psfmatch", message="psfmatch %(version)s")
def main() -> None:
    """Give an astronomical image the PSF of your choice.

    An image and the model of its point-spread function go in; the same image comes out with the target PSF, with
    its variance and mask, and with figures that say how well it was matched.

    \b
    Start here:
      psfmatch demo                       match and add four real images
      psfmatch match image.fits --psf image.psf --target moffat:fwhm=5,beta=3.5 -o matched.fits

    \b
    A PSF is a file (PSFEx, Piff, STDPSF, FITS stamps ...), stars (made from the image's own), or words:
      gaussian:fwhm=3        moffat:fwhm=5,beta=3.5        gaussian:fwhm=1.2arcsec
    Lengths are in pixels unless they end in "arcsec".

    \b
    Exit codes:
      0  everything went well
      1  an image was read, but no acceptable kernel was found for it; check: its stars do not have the target PSF
      2  bad usage or bad input; the message says what to do about it
      3  check: the stars cannot tell
      130  interrupted (Ctrl-C)
    """


for _verb in (match, check, kernel, apply, target, coadd, inspect, config, plot, report, demo):
    main.add_command(_verb)
