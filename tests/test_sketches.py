"""The pictures that explain: what they write and draw is computed, and right."""

import re

import numpy as np
import pytest
import torch
from scipy import stats

from lib import sketches
from lib.bounds import certified_radius, lower_confidence_bound
from lib.sketches import A, B


def words(figure):
    """All that the legends of a figure say."""
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    return "\n".join(text.get_text() for legend in legends for text in legend.get_texts())


def test_the_plane_has_a_hole_of_another_class_close_to_the_point():
    assert sketches.toy(0, 0) == 0 and sketches.toy(0.34, 0.22) == 1 and sketches.toy(0.34, 0.4) == 0
    assert {sketches.toy(-2, 2).item(), sketches.toy(2, -2).item()} == {1, 2}


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.2])
def test_the_circles_are_what_a_simulated_vote_certifies(sigma):
    noise = sigma * np.random.default_rng(1).standard_normal((2, 1_000_000))
    share = (sketches.toy(*noise) == 0).mean()
    said = words(sketches.certified_circle(sigma, sizes=(100, 10_000)))
    for n, written in re.findall(r"n = ([\d,]+): R = (\d\.\d+)", said):
        n = int(n.replace(",", ""))
        votes = np.array([share - 0.002, share + 0.002]) * n
        low, high = certified_radius(lower_confidence_bound(np.clip(np.floor(votes), 0, n), n, 0.001), sigma)
        assert low - 0.01 <= float(written) <= high + 0.01


def contrast(first, second):
    """Of two colours, by WCAG 2.2."""
    shades = []
    for colour in (first, second):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        shades.append(0.05 + float(np.dot([0.2126, 0.7152, 0.0722], linear)))
    return max(shades) / min(shades)


@pytest.mark.parametrize(
    "figure", [sketches.certified_circle(0.5), sketches.half_space()], ids=["circle", "half space"]
)
def test_letters_and_dots_can_be_told_from_the_tint_below_them(figure):
    axes = figure.axes[0]
    regions = next(part for part in axes.collections if type(part).__name__ == "QuadContourSet")
    tints = [[1 - alpha * (1 - c) for c in rgb] for *rgb, alpha in regions.get_facecolors()]
    letters = [text.get_color() for text in axes.texts if text.get_text() in "ABC"]
    dots = [part.get_facecolors()[0][:3] for part in axes.collections if type(part).__name__ == "PathCollection"]
    assert len(tints) >= 2 and len(letters) >= 2
    assert min(contrast(sketches.mpl.colors.to_rgb(letter), tint) for letter in letters for tint in tints) >= 4.5
    assert all(contrast(dot, tint) >= 3 for dot in dots for tint in tints)


def test_the_half_space_keeps_what_the_theorem_says():
    kept = stats.norm.cdf(stats.norm.ppf(0.9) - 0.8)
    assert re.findall(r"A has (\d\.\d+)", words(sketches.half_space(0.9, 0.8))) == ["0.90", f"{kept:.2f}"]


@pytest.mark.parametrize(("votes", "n"), [(99, 100), (9, 10), (9000, 10_000)])
def test_the_shaded_tail_holds_alpha_and_the_bound_is_never_rounded_up(votes, n):
    figure = sketches.beta_tail(votes, n, 0.001)
    line = next(line for line in figure.axes[0].lines if line.get_linestyle() == "--")
    bound = line.get_xdata()[0]
    assert np.isclose(stats.beta.cdf(bound, votes, n - votes + 1), 0.001, rtol=1e-6)
    assert "R =" not in words(figure), "alone, the number is what an exercise asks for"
    written = re.search(r"lower bound (\S+), R = (\S+) σ", words(sketches.beta_tail(votes, n, 0.001, (0.5, 1.0))))
    assert float(written[1]) <= bound and float(written[2]) <= certified_radius(bound, 1.0)


def test_the_true_class_is_blue_and_the_others_are_hatched_too():
    image, shares = torch.rand(1, 8, 8), np.array([0.1, 0.7, 0.2])
    figure = sketches.images_and_bars({"x": image}, {"f": shares}, ["a", "b", "c"], 1)
    bars = [patch for axes in figure.axes for patch in axes.patches]
    assert [bar.get_height() for bar in bars] == [0.1, 0.7, 0.2] and [bar.get_hatch() for bar in bars] == [
        "//",
        "",
        "//",
    ]
    colours = [sketches.mpl.colors.to_hex(bar.get_facecolor()).upper() for bar in bars]
    assert colours == [B, A, B]


def test_of_many_classes_those_with_the_largest_shares_are_shown():
    shares = np.arange(100) / 4950
    figure = sketches.images_and_bars({"x": torch.rand(3, 8, 8)}, {"f": shares}, [f"class {i}" for i in range(100)], 99)
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == [f"class {i}" for i in range(88, 100)]


def test_dotted_lines_lead_from_each_noise_level_to_its_timestep():
    levels = np.linspace(0, 2, 101)
    figure = sketches.forward_path({t: torch.rand(1, 4, 4) for t in (0, 50)}, levels, {0.25: 13, 0.5: 25}, "path")
    path, *dotted = [line.get_xydata() for line in figure.axes[0].lines]
    assert [line.tolist() for line in dotted] == [[[0, s], [t, s], [t, 0]] for s, t in ((0.25, 13), (0.5, 25))]
    shown = ~np.isnan(path[:, 1])
    assert np.array_equal(path[shown, 1], levels[levels < 1.2]) and len(figure.axes[0].child_axes) == 2
