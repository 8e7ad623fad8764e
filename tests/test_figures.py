"""Figures: what is drawn, how it is told apart, and how it leaves for files and for the notebook."""

import html
import json
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from lib import figures, tables
from lib.captions import CAPTIONS, caption
from lib.figures import publishing
from lib.figures.style import LEVELS, METHODS, PALETTE, known_colour, looks

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


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_published_figure_names_its_run_in_its_metadata_and_its_svg_in_the_corner(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "display", lambda bundle, raw: None)
    monkeypatch.setattr(publishing, "caption", lambda name: "what it shows")
    figure = figures.accuracy_curves(LOGS)
    before = len(figure.texts)
    figures.publish(figure, tmp_path / "runs/mine/figures/09_test_0.5")
    saved = (tmp_path / f"runs/mine/figures/09_test_0.5.{kind}").read_bytes()
    assert b"runs/mine" in saved and str(tmp_path).encode() not in saved
    assert kind != "svg" or saved.count(b"runs/mine") >= 2
    assert len(figure.texts) == before


def test_a_figure_outside_a_run_names_none():
    assert publishing.run_of("somewhere/NAME") == publishing.run_of("/figures/NAME") == ""


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


def test_published_points_have_the_colour_of_their_curve_and_only_where_the_paper_has_the_data():
    figure = figures.accuracy_curves(LOGS, paper=("cohen2019", "cifar10"))
    first, second, *points, _ = figure.axes[0].lines
    table = tables.paper_rows("cohen2019", "cifar10")
    for line, drawn, row in zip((first, second), points, LOGS, strict=True):
        cells = table[table["row"] == row]
        assert drawn.get_color() == line.get_color() and drawn.get_linestyle() == "None"
        assert drawn.get_xydata().tolist() == [
            [r, c / 100] for r, c in cells[["radius", "certified_accuracy"]].to_numpy()
        ]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [*LOGS, "published"]
    best = figures.accuracy_curves({"white-box": LOG}, paper=("salman2020", "imagenet"))
    assert best.axes[0].get_legend().get_texts()[-1].get_text() == "published, at the best σ"
    assert len(figures.accuracy_curves(LOGS, paper=("cohen2019", "digits")).axes[0].lines) == len(LOGS)


def test_49_curves_differ_in_colour_or_line_style():
    lines = figures.lines([0, 1], {str(i): [i, i] for i in range(49)}, "x", "y").axes[0].lines
    assert len({(line.get_color(), line.get_linestyle(), str(line._unscaled_dash_pattern)) for line in lines}) == 49


def test_the_same_figure_is_saved_as_the_same_bytes_with_its_words_inside(saved):
    for kind in ("png", "pdf", "svg"):
        first, second = ((saved / f"{name}.{kind}").read_bytes() for name in "ab")
        assert first == second and b"run 7" in first and b"what it shows" in first


def test_the_slide_is_1920_by_1080(saved):
    assert Image.open(saved / "a.png").size == (1920, 1080)


@pytest.fixture
def shown(monkeypatch):
    """What a cell displays: a list of MIME bundles. One figure has a caption."""
    bundles = []
    monkeypatch.setattr(publishing, "display", lambda bundle, raw: bundles.append(bundle))
    monkeypatch.setattr(publishing, "save", lambda *_: None)
    monkeypatch.setitem(CAPTIONS, "09_test", 'What is "seen".')
    return bundles


def test_a_notebook_shows_the_numbered_caption_as_words_below_and_as_alt_text(tmp_path, shown):
    figures.publish(figures.accuracy_curves(LOGS), tmp_path / "09_test")
    ((picture, said),) = [(bundle["text/html"], bundle["text/plain"]) for bundle in shown]
    assert said == 'Figure 1. What is "seen".'
    assert re.search(r'<img alt="([^"]*)"', picture)[1] == html.escape(said)
    assert f"{html.escape(said)}</figcaption>" in picture and len(picture) < 50_000


def test_a_figure_without_a_caption_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(KeyError, match="no caption for '09_none'"):
        figures.publish(figures.accuracy_curves(LOGS), tmp_path / "09_none")
    assert not list(tmp_path.iterdir())


def test_captions_are_numbered_in_each_notebook_and_one_may_serve_all_noise_levels(monkeypatch):
    for key, text in {"08_a": "A.", "09_a": "B.", "09_b": "At {}.", "09_b_c": "C."}.items():
        monkeypatch.setitem(CAPTIONS, key, text)
    said = [caption(stem) for stem in ("09_a", "09_b_0.25", "09_b_c", "08_a")]
    assert said == ["Figure 1. B.", "Figure 2 (σ = 0.25). At 0.25.", "Figure 3. C.", "Figure 1. A."]


def test_captions_are_sentences_and_belong_to_figures_of_their_notebook():
    assert [key for key, text in CAPTIONS.items() if not re.fullmatch(r"[A-Z\d].{20,}[.?)]", text)] == []
    for path in sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb")):
        stems = re.findall(r"figures/(\w+?)(?=_\{|\W)", path.read_text(encoding="utf-8"))
        assert dict.fromkeys(stems).keys() == {key for key in CAPTIONS if key[:2] == path.stem[:2]}, path.stem


FRAMES = [figures.lines([0, 1], {"p": [0, k]}, "x", "y") for k in (1, 2, 3)]


def test_a_slider_holds_every_frame_with_its_label_and_needs_no_script_for_the_first(tmp_path, shown):
    figures.slider(FRAMES, ["n = 1", "n = 2", 'n = "3"'], tmp_path / "09_test")
    (picture,) = [bundle["text/html"] for bundle in shown]
    data = json.loads(html.unescape(re.search(r'data-frames="([^"]*)"', picture)[1]))
    assert [label for label, _ in data] == ["n = 1", "n = 2", 'n = "3"'] and len({source for _, source in data}) == 3
    assert picture.count("<img") == 1 and "Shown: n = 2" in picture and "display:none" in picture
    assert "<script" not in picture and "http" not in picture and len(picture) < 150_000


def test_a_slider_that_would_be_too_large_jump_or_lack_a_label_is_refused(tmp_path, shown):
    noise = figures.image_grid({"": torch.rand(8, 3, 64, 64)}, [""] * 8)
    with pytest.raises(ValueError, match=r"a slider of \d+ KB, at most 150"):
        figures.slider([noise] * 9, [""] * 9, tmp_path / "09_test")
    with pytest.raises(ValueError, match="one size"):
        figures.slider([FRAMES[0], noise], ["", ""], tmp_path / "09_test")
    with pytest.raises(ValueError, match="3 frames and 1 labels"):
        figures.slider(FRAMES, ["n"], tmp_path / "09_test")


# ---- looks -----------------------------------------------------------------------------------------------------


def test_a_noise_level_and_a_method_have_one_colour_in_every_figure():
    assert len({known_colour(name) for name in ("σ = 0.5", "σ = 0.50", "trained at σ = 0.5", "MSE, σ = 0.5")}) == 1
    assert known_colour("trained on noise (Cohen)") == known_colour("trained on noise") != known_colour("MSE")
    assert known_colour("Stab+MSE denoiser") == figures.METHODS["Stab+MSE"]
    assert known_colour("black-box, K = 2") == figures.METHODS["black-box"] and known_colour("n = 100") == ""


def test_two_series_of_one_colour_differ_in_line_style():
    first, second, third = looks(["σ = 0.5", "σ = 0.5, runner-up bounded", "n = 100"])
    assert first["color"] == second["color"] != third["color"]
    assert first["linestyle"] != second["linestyle"]


@pytest.mark.parametrize("names", [[f"σ = {s}" for s in (0.12, 0.25, 0.5, 1.0)], list(figures.METHODS)], ids=len)
def test_named_series_are_told_apart(names):
    assert len({(look["color"], str(look["linestyle"])) for look in looks(names)}) == len(names)


# ---- bars and images -------------------------------------------------------------------------------------------


def test_votes_are_bars_of_which_one_is_marked():
    axes = figures.votes([10, 70, 20], ["a", "b", "c"], "100 votes").axes[0]
    assert [bar.get_height() for bar in axes.patches] == [10, 70, 20]
    assert [bar.get_hatch() or "" for bar in axes.patches] == ["//", "", "//"]
    both = figures.votes({"before": [1, 99], "after": [60, 40]}, ["a", "b"], label=0)
    assert [axes.get_title() for axes in both.axes] == ["before", "after"]
    assert len(figures.votes(np.arange(1000), [str(k) for k in range(1000)]).axes[0].patches) == 12


def test_wrong_answers_have_a_frame_and_a_cross():
    images = torch.rand(2, 1, 8, 8)
    grid = figures.image_grid({"a": images}, ["", ""], [["3", "5"]], wrong=[[False, True]], title="digits")
    assert [axes.get_xlabel() for axes in grid.axes] == ["3", "✗ 5"]
    assert [axes.spines["top"].get_visible() for axes in grid.axes] == [False, True]
    with pytest.raises(ValueError, match="wrong must have a row"):
        figures.image_grid({"a": images}, ["", ""], wrong=[True, False])


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


def luminance(colour):
    """Relative luminance of WCAG 2.2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("colour", sorted({*PALETTE, *LEVELS.values(), *METHODS.values()}))
def test_every_colour_of_a_line_has_a_contrast_of_three_to_one_against_white(colour):
    assert 1.05 / (luminance(colour) + 0.05) >= 3
