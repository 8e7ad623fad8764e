import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from lib import figures


@pytest.fixture
def logs():
    radius = np.array([0.0, 0.3, 0.6, 0.9])
    log = pd.DataFrame({"predict": [-1, 1, 1, 2], "radius": radius, "correct": [False, True, True, False]})
    return {"σ = 0.25": log, "σ = 0.5": log.assign(radius=2 * radius)}


def test_a_curve_is_the_share_of_correct_images_that_reach_the_radius(logs):
    line, _ = figures.accuracy_curves(logs).axes[0].lines
    x, y = line.get_data()
    for radius, share in ((0.1, 0.5), (0.45, 0.25), (0.7, 0.0)):
        assert y[np.searchsorted(x, radius)] == share


def test_curves_differ_in_colour_and_in_line_style(logs):
    lines = figures.accuracy_curves(logs).axes[0].lines
    assert len({line.get_color() for line in lines}) == len({line.get_linestyle() for line in lines}) == 2


def test_published_points_stand_beside_their_curve(logs):
    axes = figures.accuracy_curves(logs, points={"σ = 0.5": {0.0: 0.66, 0.5: 0.43}}).axes[0]
    assert list(axes.lines[-1].get_ydata()) == [0.66, 0.43]
    assert axes.lines[-1].get_color() == axes.lines[-2].get_color()


def test_the_same_figure_is_saved_as_the_same_bytes_with_its_words_inside(logs, tmp_path):
    for name in ("a", "b"):
        figures.save(figures.accuracy_curves(logs, "title"), tmp_path / name, "what it shows", "run 7")
    for kind in ("png", "pdf", "svg"):
        first, second = ((tmp_path / f"{name}.{kind}").read_bytes() for name in "ab")
        assert first == second and b"run 7" in first and b"what it shows" in first


def test_the_slide_is_1920_by_1080(logs, tmp_path):
    figures.save(figures.accuracy_curves(logs), tmp_path / "a", "what it shows")
    assert Image.open(tmp_path / "a.png").size == (1920, 1080)


def test_what_a_notebook_shows_has_alt_text_and_is_small(logs, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", shown.append)
    figures.publish(figures.accuracy_curves(logs), tmp_path / "a", "what it shows")
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
    axes = figures.lines([1, 10, 100], {"a": [1, np.nan, 3], "b": [1, 2, 3]}, "n", "accuracy", logx=True).axes[0]
    assert np.isnan(axes.lines[0].get_ydata()[1]) and axes.get_xscale() == "log"
