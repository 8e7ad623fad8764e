"""Pictures that explain: f's regions and the certified circle, the proof of the radius, a Beta tail, an attack.

Each returns a matplotlib Figure. What they show of a plane is computed, not drawn by hand: `toy` is a classifier.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from lib.bounds import certified_radius, lower_confidence_bound
from lib.figures import PALETTE, STYLE
from lib.figures.style import known_colour

A, B, C = PALETTE[0], PALETTE[1], PALETTE[2]  # the classes of the plane
_EXTENT = 2.4  # the plane is shown from -2.4 to 2.4
_HOLE = (0.34, 0.22), 0.11  # a small spot of class B close to the origin: f falls there


def toy(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """A classifier of the plane, classes 0, 1 and 2: class 0 is a flower round the origin, with a small hole of 1."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    angle = np.arctan2(y, x)
    outside = np.hypot(x, y) > 1.1 + 0.25 * np.cos(3 * angle + 0.5)
    (u, v), hole = _HOLE
    in_hole = np.hypot(x - u, y - v) < hole
    return np.where(in_hole, 1, np.where(outside, np.where(y > 0.3 * x - 0.2, 1, 2), 0))


def certified_circle(sigma: float, sizes: Sequence[int] = (100, 10_000), alpha: float = 0.001) -> Figure:
    """`toy`, a cloud of noise of level `sigma` at the origin, and the circle that n votes certify, for each n.

    The votes are those expected: n times the share of the noise that falls into class 0, rounded down.
    """
    steps = np.linspace(-6, 6, 1201)
    weight = stats.norm.pdf(steps, scale=sigma)
    share = (weight[:, None] * weight * (toy(steps, steps[:, None]) == 0)).sum() / weight.sum() ** 2
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure((6.0, 4.0), layout="constrained")
        axes = figure.add_subplot(aspect="equal", xticks=[], yticks=[], title=f"σ = {sigma:g}")
        _plane(axes)
        cloud = sigma * np.random.default_rng(0).standard_normal((400, 2))
        axes.scatter(*cloud.T, s=5, color="#767676", linewidths=0)
        axes.plot([], [], "o", color="#767676", markersize=4, label=f"x + noise: f says A for {100 * share:.1f} %")
        for size, width in zip(sizes, (1.0, 2.6, 4.2), strict=False):
            p_a = lower_confidence_bound(int(share * size), size, alpha)
            radius = float(certified_radius(p_a, sigma))
            axes.add_patch(Circle((0, 0), radius, fill=False, linewidth=width))
            axes.plot([], [], color="black", linewidth=width, label=f"n = {size:,}: R = {radius:.2f}")
        axes.plot(0, 0, "o", color="black", markersize=6)
        axes.set(xlim=(-_EXTENT, _EXTENT), ylim=(-_EXTENT, _EXTENT))
        figure.legend(loc="outside right center")
    return figure


def half_space(p_a: float = 0.9, shift: float = 0.8) -> Figure:
    """Why the radius holds: the worst region with the same p_a is a half-space. `shift`: the norm of delta / sigma."""
    edge = stats.norm.ppf(p_a)
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure((8.4, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        grid = np.linspace(-3, 3.6, 400)
        worst = (grid[None, :] > edge) * np.ones((400, 1))
        left.contourf(grid, grid, worst, levels=[-0.5, 0.5, 1.5], colors=[A, B], alpha=0.2)
        for place, name, line, side in ((0.0, "x", "-", "right"), (shift, "x + δ", "--", "left")):
            for radius in (1, 2):
                left.add_patch(Circle((place, 0), radius, fill=False, linestyle=line, color="black"))
            left.plot(place, 0, "o", color="black")
            left.annotate(name, (place, 0), xytext=(0, -16), textcoords="offset points", ha=side)
        left.set(aspect="equal", xticks=[], yticks=[], xlim=(-3, 3.6), ylim=(-3, 3))
        left.set_title("The worst f: a half-space across δ")
        left.text(-2.8, 2.5, "A", fontsize=16, weight="bold")
        left.text(3.1, 2.5, "B", fontsize=16, weight="bold")
        axis = np.linspace(-3.4, 4.4, 500)
        for place, name, line in ((0.0, "at x", "-"), (shift, "at x + δ", "--")):
            density = stats.norm.pdf(axis - place)
            right.plot(axis, density, line, color="black", label=f"{name}: A has {stats.norm.cdf(edge - place):.2f}")
            right.fill_between(axis, density, where=axis < edge, color=A, alpha=0.2, linewidth=0)
        right.axvline(edge, color=B)
        right.set(title="The same along δ", xlabel="distance along δ / σ", yticks=[], ylim=(0, 0.56))
        right.legend(loc="upper left", fontsize=11)
    return figure


def beta_tail(votes: int, n: int, alpha: float, reach: tuple[float, float] | None = None) -> Figure:
    """Clopper and Pearson's lower bound: where the tail of Beta(votes, n - votes + 1) holds alpha; 0 < votes < n.

    `reach`: what the axis of p shows; without it, what matters, and the tail once more, enlarged.
    """
    bound, share = float(lower_confidence_bound(votes, n, alpha)), votes / n
    low, high = reach or (max(0.0, bound - (share - bound) / 6), min(1.0, 2 * share - bound))
    far = min(low, max(0.0, bound - (share - bound) / 2))  # where the tail is seen to begin
    p = np.union1d(np.linspace(far, high, 1000), bound)
    density = stats.beta.pdf(p, votes, n - votes + 1)
    with mpl.rc_context(STYLE):
        figure = Figure((6.6, 3.6), layout="constrained")
        axes = figure.add_subplot(title=f"{votes:,} of {n:,} votes, α = {alpha:g}", xlabel="$p_A$")
        radius = float(certified_radius(bound, 1.0))
        told = f"{np.floor(bound * 1e4) / 1e4:.4f}, R = {np.floor(radius * 100) / 100:.2f} σ"
        said = f"lower bound {told}" if reach else "lower bound"  # alone, it is what an exercise asks for
        parts = [axes] if reach else [axes, axes.inset_axes((0.2, 0.22, 0.34, 0.36), title="the tail, enlarged")]
        for part in parts:
            part.plot(p, density, color="black")
            part.fill_between(p, density, where=p <= bound, color=B, alpha=0.6, linewidth=0)
            part.axvline(bound, color=B, linestyle="--", label=said)
            part.set(yticks=[], xlim=(low, high), ylim=(0, 1.15 * density.max()))
        axes.axvline(share, color=A, linestyle="-.", label=f"observed share {share:g}")
        if not reach:
            parts[1].set(xlim=(far, bound + (bound - far) / 4), ylim=(0, 3 * np.interp(bound, p, density)), xticks=[])
        axes.legend(loc="upper left", bbox_to_anchor=(0.0 if reach else 0.14, 1.0))
    return figure


def images_and_bars(
    images: Mapping[str, Tensor], bars: Mapping[str, ArrayLike], classes: Sequence[str], label: int, title: str = ""
) -> Figure:
    """A row of images, {name: (C, H, W)}, above a row of bar charts, {name: shares of the K classes}.

    The bar of the true class `label` is blue, the others orange and hatched. At most 12 classes are shown: the largest.
    """
    with mpl.rc_context(STYLE | {"axes.grid": False, "font.size": 11}):
        figure = Figure((9.6, 4.8), layout="constrained")
        figure.suptitle(title)
        above, below = figure.subfigures(2, 1, height_ratios=(1.1, 1))
        for axes, (name, image) in zip(np.ravel(above.subplots(1, len(images))), images.items()):
            pixels = image.detach().cpu().clamp(0, 1).movedim(0, -1).squeeze(-1).numpy()
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[], title=name)
        shown = np.sort(np.argsort(-np.mean(list(bars.values()), axis=0))[:12])
        for axes, (name, shares) in zip(np.ravel(below.subplots(1, len(bars), sharey=True)), bars.items()):
            right: Any = shown == label
            drawn = axes.bar(range(len(shown)), np.asarray(shares)[shown], color=np.where(right, A, B))
            for bar, is_right in zip(drawn, right):
                bar.set_hatch("" if is_right else "//")
            axes.set(title=name, ylim=(0, 1.02), xticks=range(len(shown)))
            names = [classes[index] for index in shown]
            axes.set_xticklabels(names, rotation=0 if max(map(len, names)) < 3 else 90)
    return figure


def forward_path(
    images: Mapping[int, Tensor], noise_level: ArrayLike, marked: Mapping[float, int], title: str = ""
) -> Figure:
    """A diffusion's forward process: the noise level of each step below images {t: (C, H, W)}, each above its t.

    `noise_level`: (T,), of images in [0, 1]; shown up to 1.2. `marked`: {sigma: t*}, dotted lines from one axis to the
    other.
    """
    levels = np.asarray(noise_level)
    with mpl.rc_context(STYLE):
        figure = Figure((9.6, 5.4), layout="constrained")
        figure.suptitle(title)
        axes = figure.add_subplot(xlabel="timestep t", ylabel="noise level σ of step t")
        axes.plot(np.where(levels < 1.2, levels, np.nan), color=PALETTE[2])
        axes.set(xlim=(0, len(levels) - 1), ylim=(0, 1.2))
        for sigma, t in marked.items():
            colour = known_colour(f"σ = {sigma:g}") or "black"
            axes.plot([0, t, t], [sigma, sigma, 0], color=colour, linestyle=":")
            axes.annotate(f"σ = {sigma:g}: t* = {t}", (t, sigma), xytext=(10, -14), textcoords="offset points")
        for t, image in images.items():
            small = axes.inset_axes((t / (len(levels) - 1) - 0.05, 1.03, 0.1, 0.2))
            pixels = image.detach().cpu().clamp(0, 1).movedim(0, -1).squeeze(-1).numpy()
            small.imshow(pixels, cmap="gray", vmin=0, vmax=1)
            small.set(xticks=[], yticks=[])
            small.set_title(f"t = {t}", fontsize=10)
    return figure


def _plane(axes: Axes) -> None:
    """The regions of `toy`, in three light colours with their letters."""
    grid = np.linspace(-_EXTENT, _EXTENT, 400)
    axes.contourf(grid, grid, toy(grid, grid[:, None]), levels=[-0.5, 0.5, 1.5, 2.5], colors=[A, B, C], alpha=0.22)
    for name, place in (("A", (-0.9, -0.75)), ("B", (-2.1, 1.9)), ("C", (1.8, -2.1))):
        axes.text(*place, name, fontsize=16, weight="bold")
