"""The PSF formats: choices, traps and refusals.  Against independent readers they are held in test_psf_page.py."""

import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

import psf_files
from psf_comparisons import PLACES, evaluated
from psfmatch.errors import FormatError, PSFError, PsfMatchWarning
from psfmatch.geometry import Box
from psfmatch.io import PSFOptions, check_psf_format, psf_formats, read_psf
from psfmatch.models.oversampled import binned_pixels, effective_psf, pixel_samples
from psfmatch.models.sky import Polynomial, SkyGridPSF, SkyMap, SkyProfilePSF
from psfmatch.psf import MoffatPSF


def test_a_file_of_several_models_asks_for_a_choice(tmp_path):
    psf_files.piff_chip_file(tmp_path / "m.piff")
    with pytest.raises(FormatError, match=r"chips 3, 7; choose one: .*m\.piff\[3\]"):
        read_psf(tmp_path / "m.piff")
    with pytest.raises(FormatError, match="no chip 5, but 3, 7"):
        read_psf(f"{tmp_path}/m.piff[5]")
    path = psf_files.sdss_file(tmp_path / "psField-000001-1-0001.fit")
    numbered = read_psf(path.replace("[r]", "[5]")).stamps(x=9.0, y=9.0)
    np.testing.assert_array_equal(numbered, read_psf(path.replace("[r]", "[z]")).stamps(x=9.0, y=9.0))
    with pytest.raises(FormatError, match=r"choose u, g, r, i or z: .*\[r\]"):
        read_psf(path.removesuffix("[r]"))
    with pytest.raises(FormatError, match="no band 'y'"):
        read_psf(path.replace("[r]", "[y]"))


def test_piff_pickles_are_loaded_only_where_trusted(tmp_path, monkeypatch):
    """A model that only piff can draw is refused without a single pickle loaded, and drawn by piff where allowed."""
    path = psf_files.piff_file(tmp_path / "k.piff", "kolmogorov")
    with monkeypatch.context() as patch:
        patch.setattr("pickle.loads", lambda *_, **__: pytest.fail("a pickle was loaded"))
        read_psf(psf_files.piff_file(tmp_path / "m.piff", "moffat"))
        with pytest.raises(FormatError, match=r"k\.piff.*model is a Kolmogorov.*allow_pickle=True"):
            read_psf(path)
    (known,) = (one for one in psf_formats() if one.name == "piff")
    psf = check_psf_format(known, path, options=PSFOptions(allow_pickle=True))
    x, y = PLACES[1]
    drawn = psf_files.piff_model("kolmogorov").draw(x=x + 1, y=y + 1, stamp_size=31, center=True, chipnum=0)
    np.testing.assert_allclose(psf.stamps(x=x, y=y, shape=(31, 31))[0], drawn.array, atol=1e-7)


def test_stdpsf_is_the_flux_in_whole_pixels(tmp_path):
    """Against the profile from which the file was made; the flux in the file does not matter."""
    path = psf_files.stdpsf_file(tmp_path / "PSFSTD_WFC3IR_F105W.fits", flux=1.03)
    node = MoffatPSF(fwhm=1.6 + 1 / 3000 + 500 / 2000, beta=3.0, ellipticity=0.15, angle=30.0)
    stamp = read_psf(path).stamps(x=0.0, y=499.0)[0]
    truth = node.stamps(x=0, y=0, shape=stamp.shape)[0]
    np.testing.assert_allclose(stamp / stamp.sum(), truth / truth.sum(), atol=3e-6)  # the file has single precision
    assert stamp.sum() == pytest.approx(1.0, abs=1e-3)


def test_stdpsf_of_several_detectors_against_photutils(tmp_path):
    """Chips above each other in one file, which photutils tells apart."""
    from photutils.psf import GriddedPSFModel

    nodes_x, nodes_y = np.linspace(1, 4096, 7), np.linspace(1, 4096, 8)
    rng = np.random.default_rng(2)
    cube = [psf_files.fine_samples(4, (45, 45), fwhm=w, integrated=True) for w in rng.uniform(1.6, 2.4, size=56)]
    hdu = fits.PrimaryHDU(np.array(cube))
    hdu.header["NXPSFS"], hdu.header["NYPSFS"] = 7, 8
    hdu.header.update({f"IPSFX{k + 1:02d}": round(x) for k, x in enumerate(nodes_x)})
    hdu.header.update({f"JPSFY{k + 1:02d}": round(y) for k, y in enumerate(nodes_y)})
    path = tmp_path / "PSFSTD_WFC3UV_F606W.fits"
    hdu.writeto(path)
    psf, model = read_psf(f"{path}[2]"), GriddedPSFModel.read(path, format="stdpsf", detector_id=2)
    sums = model.data.sum(axis=(1, 2)) / 16
    stamp, drawn = psf.stamps(x=1000.0, y=700.0)[0], evaluated(model, 1000.0, 700.0, psf.shape)
    assert 0.5 < sums.min() < sums.max() < 1.001  # believed
    np.testing.assert_allclose(stamp, drawn, atol=1e-6)
    with pytest.raises(FormatError, match=r"detectors 1 \(UVIS2; sci,1\)"):
        read_psf(path)


@pytest.mark.parametrize(("pixels", "oversampling"), [(31, 4), (30, 4), (30, 3), (31, 3)])
@pytest.mark.parametrize("extension", ["", "[OVERSAMP]", "[DET_SAMP]"])
def test_stpsf_sub_pixels_are_summed_without_a_shift(tmp_path, pixels, oversampling, extension):
    """Against the profile integrated over pixels about the source; with an even number of pixels the source is on a
    corner, and for an odd oversampling half of a sub-pixel is left over, which is interpolated."""
    path = psf_files.stpsf_file(tmp_path / "psf.fits", pixels=pixels, oversampling=oversampling)
    psf = read_psf(f"{path}{extension}")
    true = MoffatPSF(fwhm=2.2, beta=3.0, ellipticity=0.15, angle=30.0).stamps(x=0, y=0, shape=(29, 29))[0]
    stamp = psf.stamps(x=0, y=0, shape=(29, 29))[0]
    exact = pixels % 2 or oversampling % 2 == 0
    np.testing.assert_allclose(stamp, true, atol=1e-7 if exact else 5e-3)
    along = np.arange(29) - 14
    assert np.hypot((stamp.sum(0) * along).sum(), (stamp.sum(1) * along).sum()) < 1e-6


@pytest.mark.parametrize("scale", [1.0, 1.0 / 16.0])
def test_stpsf_grid_in_both_normalisations(tmp_path, scale):
    """Even samples, the source between two; positions are (y, x)."""
    psf = read_psf(psf_files.stpsf_grid_file(tmp_path / "grid.fits", scale=scale))
    node = MoffatPSF(fwhm=2.0 + 500 / 4000 + 900 / 2500, beta=3.0, ellipticity=0.15, angle=30.0)
    truth = node.stamps(x=0, y=0, shape=psf.shape)[0]
    np.testing.assert_allclose(psf.stamps(x=500.0, y=900.0)[0], truth, atol=2e-5)  # of the cubic spline


@pytest.mark.parametrize("names", [("x", "y"), ("X_IMAGE", "Y_IMAGE")])
def test_a_cube_with_positions(tmp_path, names):
    path = psf_files.cube_file(tmp_path / "cube.fits", first=float("_" in names[0]), names=names)
    psf = read_psf(path)
    np.testing.assert_allclose(psf.stamps(x=300.0, y=500.0)[0], psf_files.stamp(fwhm=3.0 + 0.3 + 1.0), atol=1e-12)
    low, high = psf_files.stamp(fwhm=3.0 + 0.3 + 0.08), psf_files.stamp(fwhm=3.0 + 0.3 + 1.0)
    np.testing.assert_allclose(psf.stamps(x=300.0, y=155.0)[0], 0.75 * low + 0.25 * high, atol=1e-12)
    np.testing.assert_allclose(read_psf(f"{path}[0:5]").image, psf_files.stamp(fwhm=3.0 + 0.9 + 0.08), atol=1e-12)
    with pytest.raises(FormatError, match="planes 0 to 5, no plane 6"):
        read_psf(f"{path}[0:6]")
    with fits.open(path) as hdus:
        hdus[:1].writeto(tmp_path / "alone.fits")
        hdus[1].data[names[0]][2] += 1.0
        hdus.writeto(tmp_path / "askew.fits")
    with pytest.raises(FormatError, match=r"without a table of their positions.*alone\.fits\[0:0\]"):
        read_psf(tmp_path / "alone.fits")
    with pytest.raises(FormatError, match="not all the nodes of one rectangular grid"):
        read_psf(tmp_path / "askew.fits")


def test_a_stamp_of_other_pixels_than_the_image(tmp_path):
    """As the oversampled PSFs of Spitzer's IRAC are: pixels a quarter as large as the image's."""
    true = MoffatPSF(fwhm=2.2, beta=3.0, ellipticity=0.2, angle=25.0)
    fine = true.scaled(4).stamps(x=0, y=0, shape=(161, 169))[0]
    fits.PrimaryHDU(fine, fits.Header([("SECPIX", 0.3)])).writeto(tmp_path / "irac.fits")
    psf = read_psf(tmp_path / "irac.fits", pixel_scale=1.2)
    np.testing.assert_allclose(psf.stamps(x=0, y=0, shape=(31, 31)), true.stamps(x=0, y=0, shape=(31, 31)), atol=1e-8)
    assert read_psf(tmp_path / "irac.fits").shape == fine.shape


def test_a_grid_on_the_pixels_themselves_is_its_samples():
    samples = np.pad(psf_files.stamp((21, 21)), 2)
    sky, powers = SkyMap.identity(Box(100, 40, 300, 700)), np.zeros((1, 2))
    psf = SkyGridPSF(parameters=Polynomial(samples.reshape(-1, 1), powers), sky=sky, step=1.0, order=4)
    np.testing.assert_allclose(psf.stamps(x=[50.0, 600.5], y=[107.0, 250.0])[1], samples / samples.sum(), atol=1e-15)
    u, v, jacobian = sky.at(x=np.array([50.0]), y=np.array([107.0]))
    assert (u[0], v[0]) == pytest.approx((50.0, 107.0))
    np.testing.assert_allclose(jacobian[0], np.eye(2), atol=1e-12)


def changed(path, target, index=0, **cards):
    """A copy of a file in which cards are others (None: are not there)."""
    with fits.open(path) as hdus:
        for key, value in cards.items():
            if value is None:
                del hdus[index].header[key]
            else:
                hdus[index].header[key] = value
        hdus.writeto(target)
    return target


def test_files_that_lie_are_refused(tmp_path):
    stdpsf, grid = psf_files.stdpsf_file(tmp_path / "s.fits"), psf_files.stpsf_grid_file(tmp_path / "g.fits")
    single = psf_files.stpsf_file(tmp_path / "o.fits", detector=False)
    psfex = psf_files.psfex_file(tmp_path / "p.psf", 2, 0.5, 25)
    with fits.open(psfex) as hdus:
        hdus[1].data["PSF_MASK"][0, 1, 3, 4] = np.nan
        hdus.writeto(tmp_path / "nan.psf")
    for path, format, says in (
        (changed(stdpsf, tmp_path / "a.fits", NXPSFS=5), None, r"6 PSFs do not fit the grid of 5 x 3"),
        (f"{stdpsf}[2]", None, r"PSFs of one detector; leave out \[2\]"),
        (changed(stdpsf, tmp_path / "e.fits", NYPSFS=None), "stdpsf", "no STDPSF file; it is a FITS file"),
        (changed(grid, tmp_path / "b.fits", DET_YX4="somewhere"), None, "number 4 has no DET_YX card"),
        (changed(grid, tmp_path / "c.fits", FOVPIXEL=33), None, "does not say its oversampling"),
        (changed(grid, tmp_path / "d.fits", DET_YX4="(1.0, 2.0)"), None, "not all the nodes of one rectangular grid"),
        (single, "stpsf-grid", "no PSF grid of STPSF; it is a FITS file"),
        (grid, "stpsf", "no PSF of STPSF named None; it is a FITS file"),
        (
            changed(single, tmp_path / "f.fits", DET_SAMP=0),
            None,
            "the extension OVERSAMP does not say its oversampling",
        ),
        (changed(psfex, tmp_path / "h.psf", 1, POLDEG1=-1), None, "PSFEx polynomial of degree -1"),
        (tmp_path / "nan.psf", None, "the PSFEx model holds NaN or infinite samples"),
    ):
        with pytest.raises((FormatError, PSFError), match=says) as caught:
            read_psf(path, format=format)
        assert Path(path).name.removesuffix("[2]") in str(caught.value)


def test_a_psfex_model_that_varies_along_one_axis(tmp_path):
    """The samples are the polynomial of the scaled y, wherever x is."""
    path = psf_files.psfex_file(tmp_path / "two.psf", 3, 1.0, 25)  # ten slices, as degree 9 along one axis has
    with fits.open(path) as hdus:
        hdus[1].data["PSF_MASK"][0, 3:] *= 0.1
        hdus[1].header.update(POLNAXIS=1, POLDEG1=9, POLNAME1="Y_IMAGE", POLZERO1=2100.0, POLSCAL1=4000.0)
        cube = hdus[1].data["PSF_MASK"][0].astype(float)
        hdus.writeto(tmp_path / "one.psf")
    samples = np.polynomial.polynomial.polyval((700.0 + 1.0 - 2100.0) / 4000.0, cube)
    stamps = read_psf(tmp_path / "one.psf").stamps(x=[0.0, 30.0, 1800.0, 4000.0], y=[700.0] * 4)
    np.testing.assert_allclose(stamps, [samples / samples.sum()] * 4, atol=1e-13)


def test_stdpsf_of_several_detectors_needs_photutils(tmp_path, monkeypatch):
    hdu = fits.PrimaryHDU(np.ones((56, 9, 13), np.float32))
    hdu.header["NXPSFS"], hdu.header["NYPSFS"] = 7, 8
    hdu.writeto(tmp_path / "s.fits")
    monkeypatch.setitem(sys.modules, "photutils.psf", None)
    with pytest.raises(FormatError, match=r"photutils splits STDPSF files .*pip install 'psfmatch\[photutils\]'"):
        read_psf(f"{tmp_path}/s.fits[2]")


def test_sums_that_cannot_be_are_normalised_with_a_warning(tmp_path):
    path = psf_files.cube_file(tmp_path / "cube.fits")
    with fits.open(path) as hdus:
        hdus[0].data *= 7.0
        hdus.writeto(tmp_path / "bright.fits")
    with pytest.warns(PsfMatchWarning, match="sum 7"):
        psf = read_psf(tmp_path / "bright.fits")
    assert psf.stamps(x=300.0, y=200.0).sum() == pytest.approx(1.0)


# ---- Piff files in which one thing is changed


def with_columns(path, target, name, *, rows=None, **columns):
    """A copy of a file in which a table has other columns (None: lacks them), or its first rows only."""
    with fits.open(path) as hdus:
        table = Table(hdus[name].data)[:rows]
        for column, values in columns.items():
            if values is None:
                table.remove_column(column)
            else:
                table[column] = values
        hdus[name] = fits.BinTableHDU(table, name=name)
        hdus.writeto(target)
    return target


@pytest.mark.parametrize(
    ("kind", "table", "columns", "says"),
    [
        ("grid", "psf", {"type": ["Sum"]}, "PSF is of type Sum; .*allow_pickle=True"),
        ("grid", "psf_stars", {"dudx": None}, "stars are without their places on the sky; .*allow_pickle=True"),
        ("grid", "psf_model", {"fit_flux": [True]}, "PixelGrid has its flux fitted"),
        ("grid", "psf_model", {"interp": ["Quintic()"]}, r"PixelGrid is interpolated by Quintic\(\)"),
        ("grid", "psf_interp", {"type": ["GPInterp"]}, "interpolation is GPInterp"),
        ("grid", "psf_interp", {"keys": [["u", "color"]]}, "BasisPolynomial is in u, color"),
        ("grid", "psf_interp", {"max_order": ["all"]}, "BasisPolynomial has the cross terms all"),
        ("grid", "psf_interp", {"order": [9]}, r"6 terms are too few for a polynomial of the orders \[9, 9\]"),
        ("moffat", "psf_interp", {"poly_type": ["chebyshev"]}, "Polynomial is of the type chebyshev"),
        ("moffat", "psf_model", {"trunc": [5.0]}, "model is a Moffat that is truncated"),
        ("grid", "psf_stars", {"rows": 0}, "has no stars that say how the pixels lie on the sky"),
        ("grid", "psf_stars", {"rows": 2}, "2 stars do not say how the pixels lie on the sky"),
        ("grid", "psf_stars", {"dudx": np.linspace(0.1, 0.9, psf_files.STARS) ** 7}, "on the sky only within"),
    ],
)
def test_a_piff_file_that_cannot_be_drawn_says_why(tmp_path, kind, table, columns, says):
    path = psf_files.piff_file(tmp_path / "m.piff", kind)
    with pytest.raises((FormatError, PSFError), match=rf"changed\.piff.*{says}"):
        read_psf(with_columns(path, tmp_path / "changed.piff", table, **columns))


def test_what_a_piff_file_may_lack(tmp_path, monkeypatch):
    """The chips of its stars where it is of one chip, but no table; nor may piff itself lack for other models."""
    path = psf_files.piff_file(tmp_path / "m.piff", "grid")
    plain = with_columns(path, tmp_path / "plain.piff", "psf_stars", chipnum=None)
    np.testing.assert_array_equal(read_psf(plain).stamps(x=90, y=70), read_psf(path).stamps(x=90, y=70))
    with fits.open(path) as hdus:
        del hdus["psf_model"]
        hdus.writeto(tmp_path / "short.piff")
    with pytest.raises(FormatError, match=r"short\.piff: the Piff file lacks its table psf_model; it is a FITS file"):
        read_psf(tmp_path / "short.piff")
    psf_files.piff_file(tmp_path / "k.piff", "kolmogorov")
    monkeypatch.setitem(sys.modules, "piff", None)
    with pytest.raises(FormatError, match=r"k\.piff: only piff can draw this model; pip install 'psfmatch\[piff\]'"):
        read_psf(tmp_path / "k.piff", allow_pickle=True)


def test_a_piff_grid_of_version_1_that_is_not_centred(tmp_path):
    """Such a file leaves out the central sample alone, which the flux fixes; no first moment is taken to vanish."""
    path = psf_files.piff_file(tmp_path / "m.piff", "grid")
    with fits.open(path) as hdus:
        q, step = hdus["psf_interp_solution"].data["q"][0].copy(), 0.3
        q[:, 0] /= q[:, 0].sum() * step**2
        q[:, 1:] -= q[:, 1:].mean(axis=0)  # only the constant term has flux
        keep = np.arange(225) != 112
        for rows, name in ((q, "whole"), (q[keep], "old")):
            hdus["psf_interp_solution"] = fits.BinTableHDU(
                np.rec.array([(rows,)], dtype=[("q", float, rows.shape)]), name="psf_interp_solution"
            )
            hdus.writeto(tmp_path / f"{name}.piff")
    old, whole = (read_psf(tmp_path / f"{name}.piff").stamps(x=300.0, y=200.0) for name in ("old", "whole"))
    np.testing.assert_allclose(old, whole, atol=1e-12)


# ---- what the models themselves refuse


def profile(coefficients, **options):
    sky = SkyMap.identity(Box(0, 0, 30, 70))
    return SkyProfilePSF(parameters=Polynomial(np.array(coefficients)[:, None], np.zeros((1, 2))), sky=sky, **options)


def grid(samples, **options):
    sky = SkyMap.identity(Box(0, 0, 30, 70))
    parameters = Polynomial(np.reshape(samples, (-1, 1)), np.zeros((1, 2)))
    return SkyGridPSF(parameters=parameters, sky=sky, **({"step": 1.0, "order": 3} | options))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: Polynomial(np.ones((2, 3)), np.zeros((2, 2))),
            r"coefficients \(2, 3\) do not fit the powers of 2 terms",
        ),
        (lambda: Polynomial(np.ones((2, 1)), -np.ones((1, 2))), "do not fit the powers of 1 terms"),
        (lambda: Polynomial(np.array([[1.0, np.nan]]), np.zeros((2, 2))), "the coefficients hold NaN"),
        (lambda: grid(np.ones(10)), "10 samples are no square grid"),
        (lambda: grid(np.ones(9), step=0.0), "a grid of step 0.0 and Lanczos order 3 is of no use"),
        (lambda: grid(np.ones(9), order=0), "a grid of step 1.0 and Lanczos order 0 is of no use"),
        (lambda: grid(np.arange(9.0) - 4).stamps(x=3, y=5), "x=3, y=5: its samples have the sum 0"),
        (lambda: profile([2.0, 0.1]), "a profile of 2 parameters is not known"),
        (lambda: profile([2.0, 0.1, 0.0], centered=False), "a profile of 3 parameters is not known"),
        (lambda: profile([2.0, 0.1, 0.0], beta=1.0), "a Moffat of beta 1.0: above 1"),
        (
            lambda: profile([2.0, 0.8, 0.7]).stamps(x=3, y=5, shape=(7, 9)),
            r"x=3, y=5: its size is 2 and its shear \(0.8, 0.7\)",
        ),
        (lambda: profile([-2.0, 0.1, 0.0]).stamps(x=3, y=5, shape=(7, 9)), "x=3, y=5: its size is -2"),
        (lambda: pixel_samples(np.ones((31, 8)), (4, 4)), "8 samples, 4 a pixel, about sample 3.5 make no stamp"),
        (lambda: binned_pixels(np.ones((31, 11)), 4), "11 small pixels, 4 in a large one, make no stamp of 3 pixels"),
        (lambda: effective_psf(np.full((1, 31, 33), np.nan), (4, 4), what="it"), "it holds NaN or infinite samples"),
        (lambda: effective_psf(np.zeros((1, 31, 33)), (4, 4), what="it"), "it has the sum 0; it is no PSF"),
        (lambda: effective_psf(np.ones((3, 31, 33)), (4, 4), what="it"), "it: 3 PSFs without positions"),
    ],
)
def test_models_that_cannot_be_say_so(make, says):
    with pytest.raises(PSFError, match=says):
        make()


def test_a_moffat_taken_at_the_pixels_centres():
    """Round, on a plane that is only scaled: the density of the profile itself, off its centre."""
    psf = profile([0.3, -0.4, 2.0, 0.0, 0.0], beta=3.0, centered=False, integrated=False)
    stamp = psf.stamps(x=11.0, y=7.0, shape=(9, 13))[0]
    core = 2.0 / np.sqrt(2.0 ** (1.0 / 2.0) - 1.0)  # half the light within 2 px
    y, x = np.mgrid[:9, :13] - np.array([4, 6])[:, None, None]
    r2 = (x - 0.3) ** 2 + (y + 0.4) ** 2
    np.testing.assert_allclose(stamp, 2.0 / (np.pi * core**2) * (1.0 + r2 / core**2) ** -3.0, rtol=1e-9)


def test_cubes_and_bands_that_are_not_there_are_named(tmp_path):
    psf_files.cube_file(tmp_path / "cube.fits")
    fits.PrimaryHDU(np.ones((9, 11))).writeto(tmp_path / "flat.fits")
    with fits.open(psf_files.sdss_file(tmp_path / "psField.fit").removesuffix("[r]")) as hdus:
        hdus[4].data["nrow_b"][1] = 9
        hdus[:5].writeto(tmp_path / "short.fit")
    for name, format, says in (
        ("cube.fits[9:0]", "cube", "no cube of PSF stamps; it is a FITS file"),
        ("flat.fits", "cube", "no cube of PSF stamps; it is a FITS file"),
        ("short.fit[z]", None, "an SDSS psField file without a PSF of z"),
        ("short.fit[i]", None, "nrow_b and ncol_b are not the sizes of a part of the coefficients c"),
    ):
        with pytest.raises(FormatError, match=says):
            read_psf(f"{tmp_path}/{name}", format=format)
