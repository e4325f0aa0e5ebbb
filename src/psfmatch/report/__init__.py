"""One HTML page that says what became of a match or a coadd: self-contained, for every reader and browser, and printed.

The page needs no network and no other file; with scripts switched off it loses what can be pointed at and keeps the
rest.
"""

from os import PathLike
from pathlib import Path

from psfmatch.exposure import Exposure
from psfmatch.io.fits import open_fits
from psfmatch.match import read_matched
from psfmatch.report.coadds import coadd_page, read_coadd
from psfmatch.report.matches import match_page
from psfmatch.report.verdict import Finding, Verdict, verdict

__all__ = ["Finding", "Verdict", "coadd_page", "match_page", "report", "verdict"]


def report(path: str | PathLike[str], *, before: Exposure | None = None) -> str:
    """The page of a file that psfmatch has written.

    Parameters
    ----------
    path : path
        A matched exposure, or a coadd.
    before : Exposure, optional
        The image that was matched; with it the page shows stars before and after.

    Returns
    -------
    str
        HTML 5.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is neither a matched exposure nor a coadd.
    """
    name = Path(path).name
    with open_fits(Path(path)) as hdus:
        coadd = "INPUTS" in hdus and "KERNEL" not in hdus
    if coadd:
        return coadd_page(*read_coadd(path), name=name)
    return match_page(read_matched(path), name=name, before=before)
