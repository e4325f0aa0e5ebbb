import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from psfmatch import FormatError, GaussianPSF, InputError, MoffatPSF, PSFError, PsfMatchWarning
from psfmatch.io import read_psf_pair, read_stamp
from psfmatch.prepare import measured_center


def truth(model, shape, center, pixel=1.0, flip=False):
    node, weight = np.polynomial.legendre.leggauss(12)
    dy, dx = ((np.arange(n) - c)[:, None] + 0.5 * node for n, c in zip(shape, center, strict=True))
    dx = -dx if flip else dx
    fine = model._density((dx * pixel)[None, None], (dy * pixel)[:, :, None, None]) * pixel**2
    return np.einsum("yaxb,a,b->yx", fine, 0.5 * weight, 0.5 * weight)


def write(path, image, **cards):
    fits.PrimaryHDU(image, fits.Header(cards)).writeto(path)
    return str(path)


def tan(scale, angle=0.0, mirrored=False, form="CD"):
    """Cards of a WCS whose +y axis has this position angle."""
    t = np.deg2rad(angle)
    east = scale / 3600.0 * (1.0 if mirrored else -1.0)
    matrix = np.array([[east * np.cos(t), scale / 3600.0 * np.sin(t)], [-east * np.sin(t), scale / 3600.0 * np.cos(t)]])
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 3.0, "CRPIX2": 2.0, "CRVAL1": 40.0, "CRVAL2": 0.0}
    if form == "CD":
        return cards | {f"CD{i}_{j}": matrix[i - 1, j - 1] for i in (1, 2) for j in (1, 2)}
    steps = {"CDELT1": east, "CDELT2": scale / 3600.0}
    if form == "CROTA":
        return cards | steps | {"CROTA2": -angle}
    ratios = matrix / np.array([[east], [scale / 3600.0]])
    return cards | steps | {f"PC{i}_{j}": ratios[i - 1, j - 1] for i in (1, 2) for j in (1, 2)}


@pytest.mark.parametrize("form", ["CD", "PC", "CROTA"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_geometry_is_that_of_the_wcs(tmp_path, form, mirrored):
    cards = tan(0.063, 37.0, mirrored, form)
    found = read_stamp(write(tmp_path / "a.fits", np.ones((4, 6)), **cards))
    assert found.pixel_scale == pytest.approx(0.063)
    assert found.angle == pytest.approx(37.0)
    assert found.mirrored == mirrored
    wcs = WCS(fits.Header(cards))
    here, up, right = (wcs.pixel_to_world(x, y) for x, y in ((2, 1), (2, 2), (3, 1)))
    assert here.position_angle(up).deg == pytest.approx(found.angle, abs=1e-3)
    turn = (here.position_angle(right).deg - found.angle) % 360.0
    assert turn == pytest.approx(90.0 if mirrored else 270.0, abs=1e-3)


@pytest.mark.parametrize(
    ("cards", "scale"),
    [
        ({"PIXSCALE": 0.2}, 0.2),
        ({"PIXELSCL": 0.031}, 0.031),
        ({"PIXSCL": 0.04}, 0.04),
        ({"PIXAR_A2": 0.0025}, 0.05),
        ({"PIXAR_SR": (np.deg2rad(0.3 / 3600)) ** 2}, 0.3),
        ({"CDELT1": -1 / 900, "CDELT2": 1 / 900}, 4.0),
        ({"CDELT1": -4.0, "CDELT2": 4.0, "CUNIT1": "arcsec", "CUNIT2": "arcsec"}, 4.0),
        ({"CDELT1": 1.0, "CDELT2": 1.0}, None),
        ({"PIXSCALE": "0.2 arcsec"}, None),
        ({"CTYPE1": "WAVE", "CTYPE2": "LINEAR", "CDELT1": 2.0, "CDELT2": 3.0}, None),
        ({"CD1_1": 0.0, "CD2_2": 0.0}, None),
        ({}, None),
    ],
)
def test_scale_of_many_headers(tmp_path, cards, scale):
    found = read_stamp(write(tmp_path / "a.fits", np.ones((4, 6)), **cards))
    assert found.pixel_scale == (None if scale is None else pytest.approx(scale))


def test_the_extension_and_then_the_primary_header_count(tmp_path):
    primary = fits.PrimaryHDU(header=fits.Header({"PIXSCALE": 0.5}))
    images = [
        fits.ImageHDU(np.ones((2, 4)), name="A"),
        fits.ImageHDU(np.ones((3, 8)), fits.Header({"PIXELSCL": 0.1}), "B"),
    ]
    fits.HDUList([primary, *images]).writeto(tmp_path / "a.fits")
    assert read_stamp(tmp_path / "a.fits").pixel_scale == 0.5
    assert read_stamp(f"{tmp_path / 'a.fits'}[B]").pixel_scale == 0.1
    assert read_stamp(f"{tmp_path / 'a.fits'}[B]").image.shape == (3, 8)
    fits.HDUList([primary]).writeto(tmp_path / "b.fits")
    with pytest.raises(FormatError, match="no two-dimensional image"):
        read_stamp(tmp_path / "b.fits")
    with pytest.raises(FileNotFoundError):
        read_psf_pair(tmp_path / "c.fits", "gaussian:fwhm=2")


TARGET = {"beta": 4.0, "ellipticity": 0.2}


@pytest.mark.parametrize("mirrored", [(False, False), (True, False), (False, True), (True, True)])
def test_a_target_of_another_scale_angle_and_parity(tmp_path, mirrored):
    """On the sky the target's long axis lies at one position angle, whatever the two images' axes are."""
    long_axis, angles, scales = 75.0, (20.0, -40.0), (0.06, 0.1)

    def direction(k):  # from +x towards +y, of a position angle in image k
        turn = long_axis - angles[k]
        return 90.0 - turn if mirrored[k] else 90.0 + turn

    science = truth(GaussianPSF(fwhm=0.2), (40, 46), (19.5, 23.0), scales[0])
    target = truth(MoffatPSF(fwhm=0.5, angle=direction(1), **TARGET), (52, 44), (25.3, 22.0), scales[1])
    paths = [
        write(tmp_path / f"{k}.fits", image, **tan(scales[k], angles[k], mirrored[k]))
        for k, image in enumerate((science, target))
    ]
    pair = read_psf_pair(*paths)
    assert pair.pixel_scale == pytest.approx(0.06)
    assert pair.target_scale == pytest.approx(0.1)
    assert pair.mirrored == (mirrored[0] != mirrored[1])
    got, centred = pair.target.stamps(x=0, y=0)[0], pair.science.stamps(x=0, y=0)[0]
    np.testing.assert_array_equal(centred, np.pad(science, ((0, 1), (0, 1))))  # between rows 19 and 20; in column 23
    middle = got.shape[0] // 2 - 0.5, got.shape[1] // 2
    wanted = truth(MoffatPSF(fwhm=0.5, angle=direction(0), **TARGET), got.shape, middle, scales[0])
    np.testing.assert_allclose(got, wanted, atol=2e-3 * wanted.max())
    assert np.hypot(*(np.array(measured_center(got)) - middle)) < 1e-3
    given = read_psf_pair(*paths, science_scale=0.1, target_scale=0.1, science_angle=0.0, target_angle=0.0)
    assert given.rotation == 0.0


def test_nothing_is_turned_or_rescaled_that_need_not_be(tmp_path):
    science, target = (
        GaussianPSF(fwhm=f, ellipticity=0.2, angle=10).stamps(x=0, y=0, shape=(31, 25))[0] for f in (3, 4)
    )
    paths = write(tmp_path / "s.fits", science, **tan(0.2, 30.0)), write(tmp_path / "t.fits", target, PIXSCALE=0.2)
    pair = read_psf_pair(*paths)
    np.testing.assert_array_equal(pair.science.stamps(x=0, y=0)[0], science)
    np.testing.assert_array_equal(pair.target.stamps(x=0, y=0)[0], target)
    assert pair.rotation == 0.0


def test_what_is_not_known_is_said(tmp_path):
    image = MoffatPSF(fwhm=4.0, beta=3.5).stamps(x=0, y=0, shape=(31, 25))[0]
    known, silent = write(tmp_path / "k.fits", image, PIXSCALE=0.3), write(tmp_path / "s.fits", image)
    with pytest.warns(PsfMatchWarning, match=r"s\.fits: says nothing of its pixel scale"):
        read_psf_pair(known, silent)
    with pytest.raises(InputError, match="one position angle is known"):
        read_psf_pair(known, known, target_angle=20.0)
    with pytest.raises(InputError, match="not a stamp"):
        read_psf_pair(known, "gaussian:fwhm=4", target_scale=0.2)
    with pytest.raises(InputError, match="above 0"):
        read_psf_pair(known, known, science_scale=-1.0)
    with pytest.warns(PsfMatchWarning, match="normalised to 1"):
        pair = read_psf_pair(write(tmp_path / "n.fits", 70.0 * image, PIXSCALE=0.3), known)
    assert pair.science.stamps(x=0, y=0)[0].sum() == pytest.approx(1.0)
    with pytest.raises(PSFError, match=r"z\.fits.*: PSF stamp has no positive flux"):
        read_psf_pair(write(tmp_path / "z.fits", 0.0 * image), silent)
    words = read_psf_pair(known, "gaussian:fwhm=1.2arcsec").target
    assert words.fwhm == pytest.approx(4.0)
