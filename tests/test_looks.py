"""The figures look as they did when somebody looked at them: panels, bars, points and lines are where they were."""

import pytest

from looks import FOLDER, MOVED, TOLERANCE, apart, drawings, stored, thumbnail
from psfmatch.plots import PLOTS

NAMES = [*(name for name in PLOTS if name != MOVED), "check"]


@pytest.fixture(scope="module")
def drawn():
    return drawings()


def bars(figure):
    return [bar for ax in figure.axes for bar in ax.child_axes] + [
        ax for ax in figure.axes if ax.get_label() == "<colorbar>"
    ]


@pytest.mark.parametrize("name", NAMES)
def test_figures_look_as_they_did(name, drawn):
    assert apart(stored(name), thumbnail(drawn[name]())) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_empty_panel_and_a_lost_bar_are_seen(name, drawn):
    panels = [k for k, ax in enumerate(drawn[name]().axes) if ax.has_data() and ax.get_label() != "<colorbar>"]
    for k in {panels[0], panels[-1]}:
        figure = drawn[name]()
        ax = figure.axes[k]
        for artist in (*ax.lines, *ax.collections, *ax.images, *ax.patches):
            artist.set_visible(False)
        assert apart(stored(name), thumbnail(figure)) > TOLERANCE, k
    figure = drawn[name]()
    if bars(figure):
        bars(figure)[-1].set_visible(False)
        assert apart(stored(name), thumbnail(figure)) > TOLERANCE


def test_swapped_panels_are_seen(drawn):
    """Science PSF and kernel change places."""
    figure = drawn["candidate"]()
    first, second = figure.axes[:2]
    images = first.images[0].get_array(), second.images[0].get_array()
    for ax, image in zip((first, second), images[::-1], strict=True):
        ax.images[0].set_data(image)
    assert apart(stored("candidate"), thumbnail(figure)) > TOLERANCE


def test_pictures_are_small():
    assert {path.stem for path in FOLDER.glob("*.png")} == set(NAMES)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 200_000
