"""Curves and bars: certified accuracy against radius, any series over one axis, votes by class."""

from collections.abc import Mapping, Sequence
from typing import cast

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from lib.bounds import accuracy_interval
from lib.figures.style import BLUE, GOLD, ORANGE, SKY, STYLE, axes_of, looks, new_figure
from lib.tables import certified_accuracy, points_of


def accuracy_curves(
    logs: Mapping[str, pd.DataFrame],
    title: str = "",
    axes: Axes | None = None,
    reach: float | None = None,
    paper: tuple[str, str] | None = None,
) -> Figure:
    """Certified accuracy against radius, a curve a log, with the 95 % interval over the choice of test images.

    It is drawn into `axes`, where these are given, and up to the radius `reach`, else to the largest of the logs.
    `paper`: (paper, data set) of `lib.tables.points_of`, such as ("cohen2019", "cifar10"): what is published of a log
    stands beside its curve, as points. For data that the paper has no table of there are none.
    """
    with mpl.rc_context(STYLE):
        axes = axes or axes_of("$\\ell_2$ radius", "certified accuracy")
        furthest = reach or max(log["radius"].max() for log in logs.values())
        radii = np.linspace(0, 1.05 * max(furthest, 1e-6), 400)
        given = dict(zip(logs, looks(logs)))
        for name, log in logs.items():
            look = given[name]
            accuracy = certified_accuracy(log, radii)
            low, high = accuracy_interval(np.round(accuracy * len(log)), len(log))
            axes.plot(radii, accuracy, label=name, **look)
            axes.fill_between(radii, low, high, color=look["color"], alpha=0.12, linewidth=0)
        points = points_of(logs, *paper) if paper else {}
        for name, cells in points.items():
            axes.plot(cells["radius"], cells["certified_accuracy"] / 100, "o", color=given[name]["color"], markersize=8)
        if points:
            best = "" if all("σ" in cells["row"].iloc[0] for cells in points.values()) else ", at the best σ"
            axes.plot([], [], "o", color="#6E6E6E", markersize=8, label=f"published{best}")
        axes.set(xlim=(0, None), ylim=(0, 1.02), title=title)
        axes.legend()
    return cast(Figure, axes.figure)


def against_control(logs: Mapping[str, pd.DataFrame], control: str, title: str = "") -> Figure:
    """Certified accuracy against radius: a small panel for each log, beside the one that is named `control`."""
    others = [name for name in logs if name != control] or [control]
    with mpl.rc_context(STYLE | {"font.size": 11, "axes.titlesize": 12}):
        rows = -(-len(others) // 3)
        figure = new_figure((9.6, 2.4 * rows + 0.8))
        figure.suptitle(title)
        panels = figure.subplots(rows, 3, sharex=True, sharey=True, squeeze=False).ravel()
        furthest = max(log["radius"].max() for log in logs.values())
        for axes, name in zip(panels, others, strict=False):
            accuracy_curves({control: logs[control], name: logs[name]}, name, axes, furthest)
            axes.get_legend().remove()
        for axes in panels[len(others) :]:
            axes.remove()
        for axes in panels[max(0, len(others) - 3) : len(others)]:
            axes.set_xlabel("$\\ell_2$ radius")
            axes.tick_params(labelbottom=True)
        figure.legend(panels[0].get_lines()[:1], [f"{control}, in every panel"], loc="outside lower center")
        figure.supylabel("certified accuracy")
    return figure


def lines(
    x: Sequence[float] | np.ndarray,
    series: Mapping[str, Sequence[float] | np.ndarray],
    xlabel: str,
    ylabel: str,
    title: str = "",
    *,
    markers: bool = False,
    log_x: bool = False,
    from_zero: bool = False,
) -> Figure:
    """Named series over one x axis. `x` and every series have the same length; NaN leaves a gap.

    `from_zero` starts both axes at 0, as those of a share against a radius should; `log_x` makes x logarithmic.
    """
    with mpl.rc_context(STYLE):
        axes = axes_of(xlabel, ylabel)
        for (name, y), look in zip(series.items(), looks(series)):
            axes.plot(x, y, marker="o" if markers else None, label=name, **look)
        axes.set(title=title, xscale="log" if log_x else "linear")
        if from_zero:
            axes.set_ylim(bottom=0)
            axes.set_xlim(left=axes.get_xlim()[0] if log_x else 0)
        if len(series) > 1:
            axes.legend()
    return cast(Figure, axes.figure)


def histograms(values: Mapping[str, ArrayLike], xlabel: str, title: str = "", *, mark: float, least: float) -> Figure:
    """Where positive numbers lie, a panel of bars for each name over one logarithmic axis; a dashed line at `mark`.

    Bars are shares of the panel's numbers; those below `least`, where the axis starts, are in its first bar. ValueError
    where nothing is to be drawn.
    """
    rows = {name: np.asarray(row, float).ravel().clip(least) for name, row in values.items()}
    if not rows or any(not row.size for row in rows.values()):
        raise ValueError("histograms need at least one number for each name")
    highest = max(mark, *(row.max() for row in rows.values()))
    edges = np.geomspace(least, max(1.1 * highest, 10 * least), 31)
    with mpl.rc_context(STYLE | {"font.size": 11}):
        figure = new_figure((9.6, 1.3 * len(rows) + 1))
        figure.suptitle(title)
        panels = figure.subplots(len(rows), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (name, row), colour in zip(panels, rows.items(), (BLUE, SKY, ORANGE, "#882255", GOLD), strict=False):
            axes.hist(row, edges, weights=np.full(row.size, 1 / row.size), color=colour)
            axes.axvline(mark, color="black", linestyle="--")
            axes.set(xscale="log", ylabel="share")
            axes.set_title(name, fontsize=11, loc="left")
        panels[-1].set_xlabel(xlabel)
    return figure


def votes(
    counts: ArrayLike | Mapping[str, ArrayLike], class_names: Sequence[str], title: str = "", label: int | None = None
) -> Figure:
    """Votes by class as bars: counts of the K classes, or {name: counts} for panels side by side.

    The bar of the true class `label`, or without it the winner's, is blue; the others are orange and hatched. Of more
    than 12 classes the 12 with the most votes are shown.
    """
    panels = {name: np.asarray(row) for name, row in (counts if isinstance(counts, Mapping) else {"": counts}).items()}
    with mpl.rc_context(STYLE | {"axes.grid": False, "font.size": 11}):
        figure = new_figure((max(4.8, 3.2 * len(panels)), 2.8))
        figure.suptitle(title)
        shown = np.sort(np.argsort(-np.sum(list(panels.values()), axis=0), kind="stable")[:12])
        for axes, (name, row) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items()):
            marked = row.argmax() if label is None else label
            for place, index in enumerate(shown):
                right = index == marked
                axes.bar(place, row[index], color=BLUE if right else ORANGE, hatch="" if right else "//")
            axes.set(title=name, xticks=range(len(shown)))
            names = [str(class_names[index]) for index in shown]
            axes.set_xticklabels(names, rotation=0 if max(map(len, names)) < 3 else 90)
        figure.axes[0].set_ylabel("votes")
    return figure
