"""The list of PSF formats: which is asked first, what each promises, and formats of other packages."""

import re
import sys

import numpy as np
import pytest
from astropy.io import fits

from psf_files import MAKERS, PSFEX, image_file
from psfmatch.errors import FormatError, PSFError, PsfMatchWarning
from psfmatch.io import PSFFormat, PSFSource, check_psf_format, psf_formats, read_psf
from psfmatch.io.psf_formats import recognised, registry
from psfmatch.psf import FunctionPSF, GaussianPSF, ImagePSF


def by_name(name):
    return next(known for known in psf_formats() if known.name == name)


@pytest.mark.parametrize("name", [known.name for known in psf_formats()])
def test_formats_keep_their_promises(tmp_path, name):
    """A format without a file here has no business in the list."""
    check_psf_format(by_name(name), MAKERS[name](tmp_path / "psf.fits"))


def test_each_file_is_taken_by_its_own_format(tmp_path):
    for name, make in MAKERS.items():
        with PSFSource(make(tmp_path / f"{name}.fits")) as source:
            assert recognised(source).name == name


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Install packages that add formats, as pip would: a module, and metadata with the entry points."""

    def install(**points):
        (tmp_path / "starfish.py").write_text(STARFISH)
        metadata = tmp_path / "starfish-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: starfish\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (metadata / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines, ""]))

    monkeypatch.syspath_prepend(str(tmp_path))
    registry._added.cache_clear()
    yield install
    registry._added.cache_clear()
    sys.modules.pop("starfish", None)


STARFISH = """
import numpy as np
import psfmatch
from psfmatch.io import PSFFormat

def read(source, options):
    if source.path.stat().st_size != 30:
        raise psfmatch.FormatError(f"{source.path}: cut off")
    return psfmatch.GaussianPSF(fwhm=float(source.head.split()[1]))

FORMAT = PSFFormat(name="starfish", title="starfish arms", recognises=lambda source: source.head[:8] == b"starfish",
                   read=read)
GREEDY = PSFFormat(name="psfex", title="", recognises=lambda source: True, read=read)
NO_FORMAT = "starfish"

def _fail(source):
    raise RuntimeError("no legs")

def _shout(source):
    raise psfmatch.FormatError("no starfish")

RUDE = PSFFormat(name="rude", title="", recognises=_shout, read=read)
LAME = PSFFormat(name="lame", title="", recognises=_fail, read=read)
"""


def test_a_format_of_another_package(tmp_path, plugins):
    plugins(starfish="starfish:FORMAT")
    path = tmp_path / "arms.txt"
    path.write_text("starfish 2.75".ljust(30))
    psf = check_psf_format(by_name("starfish"), path)
    assert psf == read_psf(path) == read_psf(path, format="starfish") == GaussianPSF(fwhm=2.75)
    assert [known.name for known in psf_formats()].index("starfish") < [k.name for k in psf_formats()].index("image")


@pytest.mark.parametrize(
    ("point", "says"),
    [
        ("starfish:FORM", "cannot be loaded: AttributeError"),
        ("starfisch:FORMAT", "cannot be loaded: ModuleNotFoundError"),
        ("starfish:NO_FORMAT", "of type str, no PSFFormat"),
        ("starfish:GREEDY", "its name 'psfex' is taken"),
        ("starfish:RUDE", "'rude' cannot look into it .FormatError: no starfish"),
        ("starfish:LAME", "'lame' cannot look into it .RuntimeError: no legs"),
    ],
)
def test_a_broken_format_of_another_package_harms_no_other(tmp_path, plugins, point, says):
    plugins(arms=point)
    path = image_file(tmp_path / "psf.fits")
    with pytest.warns(PsfMatchWarning, match=says) as caught:
        psf = read_psf(path)
    assert isinstance(psf, ImagePSF)
    assert re.search("arms|rude|lame", str(caught[0].message))


def drifting(x, y):
    return GaussianPSF(fwhm=3.0 + x * 1e-3).stamps(x=0, y=0, shape=(15, 17))[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"recognises": lambda source: True}, "takes a FITS file .* for its own"),
        ({"recognises": lambda source: False}, "does not recognise"),
        ({"read": lambda source, options: np.eye(3)}, "returned ndarray"),
        ({"read": lambda source, options: GaussianPSF(fwhm=3.0)}, "cut off at 90 % is taken"),
        ({"read": lambda source, options: 1 / 0}, "cannot be read: division by zero"),
    ],
)
def test_the_check_finds_what_is_broken(tmp_path, changes, says):
    known = by_name("psfex")
    format = PSFFormat(**{**{k: getattr(known, k) for k in ("name", "title", "recognises", "read")}, **changes})
    with pytest.raises((AssertionError, FormatError), match=says):
        check_psf_format(format, PSFEX)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x, y: 3 * drifting(x, y), "stamps of the sums"),
        (lambda x, y: np.where(x > 500, np.nan, drifting(x, y)), "sum nan"),
        (lambda x, y: np.roll(drifting(x, y), 3), "core at dx=\\+3"),
    ],
)
def test_the_check_looks_at_the_stamps(function, says):
    def read(source, options):
        known.read(source, options)
        return FunctionPSF(function, (15, 17))

    known = by_name("psfex")
    format = PSFFormat(name="mine", title="mine", recognises=known.recognises, read=read)
    with pytest.raises((AssertionError, PSFError), match=says):
        check_psf_format(format, PSFEX)


def test_what_is_no_psf_is_refused_with_what_it_seems_to_be(tmp_path):
    np.savez(tmp_path / "many.npz", psf=np.eye(5))
    with pytest.raises(FormatError, match=r"many\.npz: .* a ZIP archive.*Known: .*psfmatch"):
        read_psf(tmp_path / "many.npz")
    table = fits.BinTableHDU.from_columns([fits.Column("flux", "E", array=np.ones(3))], name="CAT")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "cat.fits")
    with pytest.raises(FormatError, match=r"cat\.fits: .* 1 CAT \[flux\]"):
        read_psf(tmp_path / "cat.fits")
