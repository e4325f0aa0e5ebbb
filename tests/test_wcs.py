"""What becomes of a header's WCS before wcslib, which trusts every card, sees it."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from psfmatch.errors import InputError, PsfMatchWarning
from psfmatch.geometry import Box
from psfmatch.warp import Grid
from psfmatch.wcs import cut_wcs, header_wcs

CARDS = {
    "NAXIS": "2", "NAXIS1": "90", "NAXIS2": "70", "CTYPE1": "'RA---TAN'", "CTYPE2": "'DEC--TAN'", "CRPIX1": "41.5",
    "CRPIX2": "7.", "CRVAL1": "210.75", "CRVAL2": "-33.5", "CD1_1": "-7.1E-5", "CD1_2": "3E-6", "CD2_1": "2E-6",
    "CD2_2": "7.3E-5",
}  # fmt: skip
SIP = {"A_ORDER": "2", "B_ORDER": "3", "A_2_0": "1.5E-6", "A_1_1": "-4E-7", "B_0_3": "2E-9"}
X, Y = np.array([0.0, 89.0, 13.0]), np.array([69.0, 0.0, 44.0])


def text_header(cards, *more):
    """As in a file: the text of values, of which astropy makes what it does."""
    lines = [f"{name:8}= {value}" for name, value in cards.items()]
    return fits.Header.fromstring("".join(line.ljust(80) for line in [*lines, *more]))


def header(*more, **cards):
    return text_header(CARDS | cards, *more)


def sky(wcs):
    return np.array(wcs.pixel_to_world_values(X, Y))


@pytest.mark.parametrize(
    "cards",
    [
        {},
        SIP | {"CTYPE1": "'RA---TAN-SIP'", "CTYPE2": "'DEC--TAN-SIP'"},
        {"CTYPE1": "'RA---TPV'", "CTYPE2": "'DEC--TPV'", "PV1_1": "1.002", "PV2_1": "0.998", "PV1_4": "1E-2"},
        {"CTYPE1": "'GLON-ZEA'", "CTYPE2": "'GLAT-ZEA'", "LONPOLE": "170.", "CUNIT1": "'arcsec'", "CUNIT2": "'arcsec'"},
        {"WCSAXES": "3", "CTYPE3": "'FREQ'", "CD3_3": "2.", "CRVAL3": "1.4E9", "NAXIS": "3", "NAXIS3": "1"},
        {"RADESYS": "'FK5'", "EQUINOX": "1975.0", "CD1_1": "-.00007100000000000000123456789"},
    ],
)
def test_a_sound_wcs_is_what_astropy_makes_of_it(cards):
    """To the last bit."""
    ours, theirs = header_wcs(header(**cards)), WCS(header(**cards)).celestial
    np.testing.assert_array_equal(sky(ours), sky(theirs))
    assert ours.to_header(relax=True).tostring() == theirs.to_header(relax=True).tostring()


def test_exponents_of_double_precision_are_read():
    """FITS 4.0, section 4.2.4; wcslib takes 2.1075D2 for 2.1075."""
    wcs = header_wcs(header(CRVAL1="2.1075D2", CD1_1="-7.1D-5"))
    np.testing.assert_array_equal(sky(wcs), sky(header_wcs(header())))


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ({"CRVAL1": "'210.75'"}, r"CRVAL1 = '210\.75': give a number"),
        ({"CRPIX2": "T"}, "CRPIX2 = T: give a number"),
        ({"CD1_1": ""}, "CD1_1 =: give a number"),
        ({"CRVAL2": "-33.5 deg"}, "CRVAL2: give a number"),
        ({"CRVAL2": "1E999"}, "CRVAL2 = 1E999: give a number"),
        ({"WCSAXES": "65536"}, "WCSAXES = 65536: give an integer from 0 to 9"),
        (SIP | {"BP_ORDER": "30000"}, "BP_ORDER= 30000: give an integer from 0 to 9"),
        (SIP | {"A_ORDER": "1.5"}, "A_ORDER = 1.5: give an integer from 0 to 9"),
        (
            SIP | {"CTYPE1": "'x[1]'", "CTYPE2": "'y'"},
            r"CTYPE1 = 'x\[1\]': SIP's polynomials are of coordinates of the sky",
        ),
        ({"CTYPE2": "'DEC--TAN'  projection"}, "CTYPE2: give a text"),
        ({"CUNIT1": "3"}, "CUNIT1 = 3: give a text"),
        ({"CTYPE1": "'RA---TNX'", "CTYPE2": "'DEC--TNX'"}, "CTYPE1 = 'RA---TNX': such coordinates are not read"),
        ({"CPDIS1": "'Polynomial'"}, "CPDIS1 = 'Polynomial': distortions are read from SIP, TPV and lookup tables"),
    ],
)
def test_what_would_be_read_wrong_is_refused(cards, said):
    """Astropy: a place of 0, a heap that is damaged, hours, and no distortion; each without a word."""
    with pytest.raises(InputError, match=said):
        header_wcs(header(**cards))


@pytest.mark.parametrize(
    "cards",
    [
        {"CNPIX1": "0", "CNPIX2": "0"},  # of Kitt Peak's images: wcslib saw a plate whose matrix is singular
        {"XPIXELSZ": "'     12'"},  # of amateurs' cameras: wcslib died
        {"AMDX1": "T"},
        {"WCSAXESB": "65536", "CRVAL1B": "'x'"},
        {"EQUINOX": "'J2000'", "MJD-OBS": "'x'"},
        {"LONPOLE": "", "CROTA2": "", "CRVAL3": ""},
        {"CPDIS1": "'       '"},
        {"CTYPE3": "'WAVE-TAB'", "CUNIT3": "12", "CD3_3": "1.", "NAXIS": "3", "NAXIS3": "1"},  # of no image
        {"WAT1_000": "'wtype=tan'", "WAT2_001": "'wtype=tnx axtype=dec latcor = \"3. -3. 4. 2. 0 1 0 1 0\"'"},
    ],
)
def test_what_has_no_say_is_not_seen(cards):
    np.testing.assert_array_equal(sky(header_wcs(header(**cards))), sky(header_wcs(header())))


def test_records_of_a_distortion_without_one_are_not_seen():
    """wcslib wrote beyond its memory."""
    wcs = header_wcs(header("DQ1     = 'NAXES: 2'", "DQ1     = 'AXIS.99999: 1'", "DP2     = 'NAXES: 2'"))
    np.testing.assert_array_equal(sky(wcs), sky(header_wcs(header())))


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_cards_of_other_forms_are_read():
    """Of ALMA, Pan-STARRS, texts over two cards; and a keyword behind HIERARCH is another one."""
    plain = {name: value for name, value in CARDS.items() if not name.startswith("CD")}
    turned = {"1_1": 0.8, "1_2": 0.6, "2_1": -0.6, "2_2": 0.8}

    def made(**cards):
        return text_header(plain | {"CDELT1": "-7E-5", "CDELT2": "7E-5"} | cards)

    expected = sky(header_wcs(made(**{f"PC{at}": value for at, value in turned.items()})))
    padded = {f"PC0{at.replace('_', '_0')}": value for at, value in turned.items()}
    old = {f"PC00{at.replace('_', '00')}": value for at, value in turned.items()}
    for cards in (padded, old):
        np.testing.assert_array_equal(sky(header_wcs(made(**cards))), expected)
        np.testing.assert_array_equal(sky(WCS(made(**cards))), expected)
    rest = {name: value for name, value in CARDS.items() if name != "CTYPE1"}
    long = text_header(rest, "CTYPE1  = 'RA---&'", "CONTINUE  'TAN'", "HIERARCH CRVAL1 = 12.")
    np.testing.assert_array_equal(sky(header_wcs(long)), sky(header_wcs(header())))


def test_a_place_that_is_said_twice_is_said():
    with pytest.warns(PsfMatchWarning, match=r"CRVAL1 stands there twice; the last is taken, 12\.0"):
        wcs = header_wcs(header("CRVAL1  = 12."))
    assert wcs.wcs.crval[0] == 12.0


@pytest.mark.filterwarnings("ignore:Removed redundant SIP")
def test_polynomials_of_scamp_are_preferred_to_those_that_it_was_given():
    """As astropy does where CTYPE does not say -SIP: files of the Palomar Transient Factory."""
    cards = header(**SIP, PV1_1="1.002", PV2_1="0.998", PV1_4="1E-2", PV1_5="2E-2")
    np.testing.assert_array_equal(sky(header_wcs(cards)), sky(WCS(cards)))


def test_sip_without_its_name_is_applied_and_said():
    with pytest.warns(PsfMatchWarning, match="header: SIP's polynomials are applied, though CTYPE does not say -SIP"):
        wcs = header_wcs(header(**SIP))
    assert list(wcs.wcs.ctype) == ["RA---TAN-SIP", "DEC--TAN-SIP"]
    named = header_wcs(header(**SIP, CTYPE1="'RA---TAN-SIP'", CTYPE2="'DEC--TAN-SIP'"))
    np.testing.assert_array_equal(sky(wcs), sky(named))


def test_sip_is_read_where_there_is_a_third_axis():
    """Astropy refuses it."""
    named = {**SIP, "CTYPE1": "'RA---TAN-SIP'", "CTYPE2": "'DEC--TAN-SIP'"}
    wcs = header_wcs(header(**named, NAXIS="3", NAXIS3="1"))
    np.testing.assert_array_equal(sky(wcs), sky(header_wcs(header(**named))))


def test_mars_is_named():
    wcs = header_wcs(header(CTYPE1="'MALN-CAR'", CTYPE2="'MALT-CAR'", A_RADIUS="3396190.", C_RADIUS="3376200."))
    assert (wcs.wcs.aux.a_radius, wcs.wcs.aux.c_radius) == (3396190.0, 3376200.0)


def test_a_scanned_plate_is_placed_approximately_and_it_is_said():
    plate = {"AMDX1": "67.2", "AMDY1": "67.2", "PLTRAH": "13", "CNPIX1": "7000", "CNPIX2": "8000", "PPO3": "177500."}
    with pytest.warns(PsfMatchWarning, match="the polynomials of a scanned plate are not read"):
        wcs = header_wcs(header(**plate))
    np.testing.assert_array_equal(sky(wcs), sky(header_wcs(header())))


def test_a_grid_of_such_a_header_says_so():
    with pytest.raises(InputError, match=r"the header's WCS cannot be used \(WCSAXES = 65536: give an integer"):
        Grid.from_header({"WCSAXES": 65536, "NAXIS1": 9, "NAXIS2": 7, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    radio = {"CTYPE1": "'STOKES'", "CTYPE3": "'RA---SIN'", "CTYPE4": "'DEC--SIN'", "CD3_3": "-1E-4", "CD4_4": "1E-4"}
    with pytest.raises(InputError, match="first axes are STOKES and FREQ; give one with the sky on them"):
        Grid.from_header(header(**radio, CTYPE2="'FREQ'", NAXIS="4", NAXIS3="9", NAXIS4="7"))


@pytest.mark.parametrize("sides", [None, (30, 25), (90, 70), (4, 90)])
def test_a_part_lies_where_it_lay_whatever_the_wcs_takes_for_the_image(sides):
    """Astropy cuts slices to the shape that the WCS came with: of a compressed image's table, or of another image."""
    wcs = header_wcs(header(**SIP, CTYPE1="'RA---TAN-SIP'", CTYPE2="'DEC--TAN-SIP'"))
    expected = sky(wcs)
    wcs.pixel_shape = sides
    part = cut_wcs(wcs, (slice(41, 69), slice(52, 88)))
    np.testing.assert_allclose(part.pixel_to_world_values(X - 52, Y - 41), expected, rtol=0, atol=1e-12)
    assert (part.array_shape, wcs.pixel_shape) == ((28, 36), sides)


def test_a_grid_of_a_compressed_image_is_of_its_pixels():
    table = header(NAXIS1="8", ZNAXIS="2", ZNAXIS1="90", ZNAXIS2="70")
    grid = Grid.from_header(table)
    assert (grid.shape, grid.wcs.array_shape) == ((70, 90), (70, 90))
    box = Box(y0=30, x0=50, y1=60, x1=85)
    moved = grid.cutout(box).wcs.pixel_to_world_values(X - 50, Y - 30)
    np.testing.assert_allclose(moved, sky(header_wcs(header())), rtol=0, atol=1e-12)
