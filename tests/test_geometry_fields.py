import numpy as np
import pytest
from astropy import units as u

from psfmatch import Box, Field, InputError
from psfmatch.fields import n_terms, term_degrees
from psfmatch.geometry import as_positions, resized


def test_box_center_is_the_mean_of_the_pixel_centres():
    box = Box(-3, 10, 4, 21)
    y, x = np.mgrid[-3:4, 10:21]
    assert box.shape == y.shape
    assert (box.center.y, box.center.x) == (y.mean(), x.mean())


def test_box_slices_cut_the_same_pixels_out_of_the_parent():
    parent, child = Box(-3, 10, 40, 61), Box(5, 12, 9, 30)
    y, x = np.mgrid[-3:40, 10:61]
    cut = child.slices(parent)
    assert (y[cut][0, 0], x[cut][0, 0], y[cut][-1, -1], x[cut][-1, -1]) == (5, 12, 8, 29)


@pytest.mark.parametrize("corners", [(0, 0, 0, 5), (3, 2, 1, 9), (0, 0.5, 4, 4)])
def test_a_box_without_whole_pixels_is_refused(corners):
    with pytest.raises(InputError, match="pixels"):
        Box(*corners)


def test_a_box_beyond_its_parent_is_refused():
    with pytest.raises(InputError, match="not inside"):
        Box(0, 0, 9, 9).slices(Box(0, 0, 5, 20))


def test_resizing_keeps_the_centre():
    stamps = np.zeros((2, 5, 9))
    stamps[:, 2, 4] = 1.0
    assert resized(stamps, (9, 3))[:, 4, 1].tolist() == [1.0, 1.0]
    assert resized(resized(stamps, (9, 11)), (5, 9)).tolist() == stamps.tolist()


def test_positions_may_be_in_pixels():
    x, y = as_positions([3.0, 7.5] * u.pix, 4 * u.pix)
    assert (x.tolist(), y.tolist()) == ([3.0, 7.5], [4.0, 4.0])
    assert type(x) is type(y) is np.ndarray


def test_positions_must_fit_together_and_be_finite():
    with pytest.raises(InputError, match="do not fit"):
        as_positions([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="finite"):
        as_positions(np.nan, 1.0)


def test_terms_are_order_major():
    assert term_degrees(2) == ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
    assert [n_terms(k) for k in range(4)] == [1, 3, 6, 10]


def test_chebyshev_field_against_cosines():
    box = Box.from_shape((40, 100), y0=-7, x0=300)
    field = Field(np.eye(6), box)
    x, y = np.array([300.0, 351.25, 399.0]), np.array([-7.0, 3.5, 32.0])
    u, v = (x - 299.5) / 50 - 1, (y + 7.5) / 20 - 1
    tx, ty = (np.array([np.cos(n * np.arccos(w)) for n in range(3)]) for w in (u, v))
    expected = [tx[0], tx[1], ty[1], tx[2], tx[1] * ty[1], ty[2]]
    np.testing.assert_allclose(field.at(x=x, y=y), expected, atol=1e-14)


def test_polynomial_field_is_in_pixels():
    field = Field([[1.0, 2.0, 3.0, 0.5, -1.0, 0.25]], Box(0, 0, 4, 7), "polynomial")
    x, y = 11.0, -5.0
    assert field.at(x=x, y=y)[0, 0] == 1 + 2 * x + 3 * y + 0.5 * x * x - x * y + 0.25 * y * y


@pytest.mark.parametrize(("kind", "terms"), [("chebyshev1", 10), ("polynomial", 10), ("spline", 25), ("cells", 9)])
def test_grid_agrees_with_scattered_positions(kind, terms):
    rng = np.random.default_rng(1)
    field = Field(rng.normal(size=(3, terms)), Box.from_shape((31, 17), y0=4, x0=-9), kind)
    x, y = np.arange(-9.0, 8.0), np.arange(4.0, 35.0)
    grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
    np.testing.assert_allclose(
        field.on_grid(x=x, y=y).reshape(3, -1), field.at(x=grid_x.ravel(), y=grid_y.ravel()), rtol=1e-10
    )


def test_fit_returns_the_field_that_made_the_values():
    rng = np.random.default_rng(2)
    field = Field(rng.normal(size=(2, 6)), Box(0, 0, 50, 90))
    x, y = rng.uniform(0, 90, 20), rng.uniform(0, 50, 20)
    again = Field.fit(field.at(x=x, y=y), x=x, y=y, order=2, box=field.box)
    np.testing.assert_allclose(again.coefficients, field.coefficients, atol=1e-12)


def test_splines_follow_what_no_low_polynomial_does():
    box = Box.from_shape((300, 500), y0=-100, x0=1000)
    x, y = (g.ravel() for g in np.meshgrid(np.linspace(1000, 1499, 60), np.linspace(-100, 199, 40)))
    values = np.tanh((x - 1250) / 20) * np.cos(y / 40)
    at = {"x": x[7::13], "y": y[7::13]}
    truth = values[7::13]
    spline = Field.fit(values, x=x, y=y, order=29, box=box, kind="spline").at(**at)[0]
    polynomial = Field.fit(values, x=x, y=y, order=8, box=box).at(**at)[0]
    assert np.abs(spline - truth).max() < 0.02
    assert np.abs(polynomial - truth).max() > 0.2


def test_splines_hold_cubics_exactly():
    box = Box.from_shape((30, 50))
    x, y = (g.ravel() for g in np.meshgrid(np.arange(50.0), np.arange(30.0)))
    values = 1e-3 * (x**3 - 2 * x * y**2) + y
    field = Field.fit(values, x=x, y=y, order=6, box=box, kind="spline")
    np.testing.assert_allclose(field.at(x=x, y=y)[0], values, atol=1e-10)


def test_cells_are_steps_of_equal_size():
    """Of 40 x 30 px, rows of three; what lies beyond the edges belongs to the outermost."""
    field = Field(np.arange(9.0)[None], Box.from_shape((90, 120), y0=10, x0=-20), "cells")
    x, y = np.array([-20.0, 19.0, 20.0, 59.0, 60.0, 99.0, 300.0]), np.array([10.0, 39.0, 40.0, 69.0, 70.0, 99.0, -9.0])
    assert field.at(x=x, y=y)[0].tolist() == [0.0, 0.0, 4.0, 4.0, 8.0, 8.0, 2.0]


def test_bad_fields_are_refused():
    with pytest.raises(InputError, match="shape"):
        Field(np.ones((2, 4)), Box(0, 0, 5, 5))
    with pytest.raises(InputError, match="finite"):
        Field([[np.nan]], Box(0, 0, 5, 5))
    with pytest.raises(InputError, match="kind"):
        Field([[1.0]], Box(0, 0, 5, 5), "fourier")
    with pytest.raises(InputError, match="16"):
        Field(np.ones((2, 9)), Box(0, 0, 5, 5), "spline")
    with pytest.raises(InputError, match="cannot fix"):
        Field.fit([1.0, 2.0], x=[0, 1], y=[0, 1], order=1, box=Box(0, 0, 5, 5))
