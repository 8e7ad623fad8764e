import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from PIL import Image

from lib import figures

RADIUS = np.array([0.0, 0.3, 0.6, 0.9])
LOG = pd.DataFrame({"predict": [-1, 1, 1, 2], "radius": RADIUS, "correct": [False, True, True, False]})
LOGS = {"σ = 0.25": LOG, "σ = 0.5": LOG.assign(radius=2 * RADIUS)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with one figure, saved twice."""
    folder = tmp_path_factory.mktemp("figures")
    for name in ("a", "b"):
        figures.save(figures.accuracy_curves(LOGS, "title"), folder / name, "what it shows", "run 7")
    return folder


def test_a_curve_is_the_share_of_correct_images_that_reach_the_radius():
    line, _ = figures.accuracy_curves(LOGS).axes[0].lines
    x, y = line.get_data()
    for radius, share in ((0.1, 0.5), (0.45, 0.25), (0.7, 0.0)):
        assert y[np.searchsorted(x, radius)] == share


def test_curves_differ_in_colour_and_in_line_style():
    lines = figures.accuracy_curves(LOGS).axes[0].lines
    assert len({line.get_color() for line in lines}) == len({line.get_linestyle() for line in lines}) == 2


def test_curves_are_drawn_into_the_axes_that_are_given_up_to_the_radius_that_is_given():
    figure = Figure()
    panels = figure.subplots(1, 2)
    assert figures.accuracy_curves(LOGS, "title", panels[1], reach=2.0) is figure
    assert not panels[0].lines and [line.get_xdata()[-1] for line in panels[1].lines] == [2.1, 2.1]
    assert panels[1].get_title() == "title"


def test_49_curves_differ_in_colour_or_line_style():
    lines = figures.lines([0, 1], {str(i): [i, i] for i in range(49)}, "x", "y").axes[0].lines
    assert len({(line.get_color(), line.get_linestyle(), str(line._unscaled_dash_pattern)) for line in lines}) == 49


def test_the_same_figure_is_saved_as_the_same_bytes_with_its_words_inside(saved):
    for kind in ("png", "pdf", "svg"):
        first, second = ((saved / f"{name}.{kind}").read_bytes() for name in "ab")
        assert first == second and b"run 7" in first and b"what it shows" in first


def test_the_slide_is_1920_by_1080(saved):
    assert Image.open(saved / "a.png").size == (1920, 1080)


def test_what_a_notebook_shows_has_alt_text_and_is_small(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", shown.append)
    monkeypatch.setattr(figures, "save", lambda *_: None)
    figures.publish(figures.accuracy_curves(LOGS), tmp_path / "a", "what it shows")
    ((data, metadata),) = [DisplayFormatter().format(image) for image in shown]
    assert metadata["image/png"]["alt"] == "what it shows"
    assert len(data["image/png"]) < 40_000


def test_an_image_grid_has_a_row_a_name_and_a_caption_an_image():
    images = torch.rand(3, 1, 8, 8)
    grid = figures.image_grid(
        {"clean": images, "noisy": images * 3}, ["a", "b", "c"], [["1", "2", "3"], ["4", "5", "6"]]
    )
    assert len(grid.axes) == 6
    assert [axes.get_xlabel() for axes in grid.axes] == ["1", "2", "3", "4", "5", "6"]
    assert np.max(grid.axes[3].images[0].get_array()) <= 1


def test_lines_leave_a_gap_where_a_value_is_missing():
    axes = figures.lines([1, 10, 100], {"a": [1, np.nan, 3], "b": [1, 2, 3]}, "n", "accuracy").axes[0]
    assert np.isnan(axes.lines[0].get_ydata()[1])
