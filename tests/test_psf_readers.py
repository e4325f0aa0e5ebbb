"""The PSF formats: choices, traps and refusals.  Against independent readers they are held in test_psf_page.py."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import psf_files
from psf_comparisons import PLACES, evaluated
from psfmatch.errors import FormatError, PSFError, PsfMatchWarning
from psfmatch.geometry import Box
from psfmatch.io import PSFOptions, check_psf_format, psf_formats, read_psf
from psfmatch.models.sky import Polynomial, SkyGridPSF, SkyMap
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


def test_files_that_lie_are_refused(tmp_path):
    def changed(path, name, **cards):
        with fits.open(path) as hdus:
            hdus[0].header.update(cards)
            hdus.writeto(tmp_path / name)
        return tmp_path / name

    stdpsf, grid = psf_files.stdpsf_file(tmp_path / "s.fits"), psf_files.stpsf_grid_file(tmp_path / "g.fits")
    for path, says in (
        (changed(stdpsf, "a.fits", NXPSFS=5), r"6 PSFs do not fit the grid of 5 x 3"),
        (f"{stdpsf}[2]", r"PSFs of one detector; leave out \[2\]"),
        (changed(grid, "b.fits", DET_YX4="somewhere"), "number 4 has no DET_YX card"),
        (changed(grid, "c.fits", FOVPIXEL=33), "does not say its oversampling"),
        (changed(grid, "d.fits", DET_YX4="(1.0, 2.0)"), "not all the nodes of one rectangular grid"),
    ):
        with pytest.raises((FormatError, PSFError), match=says) as caught:
            read_psf(path)
        assert Path(path).name.removesuffix("[2]") in str(caught.value)


def test_sums_that_cannot_be_are_normalised_with_a_warning(tmp_path):
    path = psf_files.cube_file(tmp_path / "cube.fits")
    with fits.open(path) as hdus:
        hdus[0].data *= 7.0
        hdus.writeto(tmp_path / "bright.fits")
    with pytest.warns(PsfMatchWarning, match="sum 7"):
        psf = read_psf(tmp_path / "bright.fits")
    assert psf.stamps(x=300.0, y=200.0).sum() == pytest.approx(1.0)
