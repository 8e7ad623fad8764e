"""Figures: functions of records and numbers -> matplotlib Figure, and one way to publish them.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; line styles carry the same distinction in black
and white. Nothing here opens a window or touches matplotlib's global state.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image as PILImage
from torch import Tensor

from lib.bounds import accuracy_interval
from lib.machine.files import atomic_write
from lib.tables import certified_accuracy

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
STYLE: dict[Any, Any] = {
    "font.size": 13, "axes.titlesize": 14, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.alpha": 0.3, "lines.linewidth": 2.2, "legend.frameon": False, "figure.constrained_layout.use": True,
    "svg.hashsalt": "kit", "svg.fonttype": "none", "pdf.fonttype": 42,
}  # fmt: skip
WIDE = (9.6, 5.4)  # inches; 16:9


def accuracy_curves(
    logs: Mapping[str, pd.DataFrame], title: str = "", axes: Axes | None = None, reach: float | None = None
) -> Figure:
    """Certified accuracy against radius, a curve a log, with the 95 % interval over the choice of test images.

    It is drawn into `axes`, where these are given, and up to the radius `reach`, else to the largest of the logs.
    """
    with mpl.rc_context(STYLE):
        axes = axes or _axes("l2 radius", "certified accuracy")
        furthest = reach or max(log["radius"].max() for log in logs.values())
        radii = np.linspace(0, 1.05 * max(furthest, 1e-6), 400)
        for (name, log), look in zip(logs.items(), _looks()):
            accuracy = certified_accuracy(log, radii)
            low, high = accuracy_interval(np.round(accuracy * len(log)), len(log))
            axes.plot(radii, accuracy, label=name, **look)
            axes.fill_between(radii, low, high, color=look["color"], alpha=0.12, linewidth=0)
        axes.set(xlim=(0, None), ylim=(0, 1.02), title=title)
        axes.legend()
    return cast(Figure, axes.figure)


def lines(
    x: Sequence[float] | np.ndarray,
    series: Mapping[str, Sequence[float] | np.ndarray],
    xlabel: str,
    ylabel: str,
    title: str = "",
    *,
    markers: bool = False,
) -> Figure:
    """Named series over one x axis. `x` and every series have the same length; NaN leaves a gap."""
    with mpl.rc_context(STYLE):
        axes = _axes(xlabel, ylabel)
        for (name, y), look in zip(series.items(), _looks()):
            axes.plot(x, y, marker="o" if markers else None, label=name, **look)
        axes.set_title(title)
        if len(series) > 1:
            axes.legend()
    return cast(Figure, axes.figure)


def image_grid(
    rows: Mapping[str, Tensor], columns: Sequence[str], captions: Sequence[Sequence[str]] | None = None
) -> Figure:
    """Images in a grid, a named row each: {name: (N, C, H, W) in about [0, 1]}, with N = len(columns).

    Values outside [0, 1], as noisy images have, are shown clipped. `captions[row][column]` stands under an image.
    """
    with mpl.rc_context(STYLE | {"axes.grid": False, "font.size": 11}):
        figure = _figure((1.35 * len(columns) + 1.2, (1.35 + 0.22 * bool(captions)) * len(rows) + 0.4))
        grid = figure.subplots(len(rows), len(columns), squeeze=False)
        for i, (name, images) in enumerate(rows.items()):
            for j, image in enumerate(images.detach().cpu().clamp(0, 1)):
                axes = grid[i, j]
                axes.imshow(image.movedim(0, -1).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
                axes.set(xticks=[], yticks=[], title=columns[j] if i == 0 else "")
                axes.spines[:].set_visible(False)
                if captions:
                    axes.set_xlabel(captions[i][j])
            grid[i, 0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def publish(figure: Figure, stem: str | Path, alt: str, run_id: str = "") -> None:
    """Save a figure (see `save`) and show it in the notebook, with `alt` as the words that stand for it."""
    save(figure, stem, alt, run_id)
    with mpl.rc_context(STYLE):
        inline = PILImage.open(io.BytesIO(_rendered(figure, "png", 80, {"Software": None})))
    buffer = io.BytesIO()
    inline.convert("RGB").quantize(128).save(buffer, "png", optimize=True)  # a notebook stays below 300 KB
    display(Image(buffer.getvalue(), alt=alt))


def save(figure: Figure, stem: str | Path, alt: str, run_id: str = "") -> None:
    """Write <stem>.png for slides (1920 pixels wide where the figure is 16:9), .pdf for a paper, .svg for the web.

    All three carry `alt` and `run_id` in their metadata and no date: the same figure gives the same bytes.
    """
    stem = Path(stem)
    metadata = {
        "png": {"Description": alt, "Source": run_id, "Software": None},
        "pdf": {"Subject": alt, "Keywords": run_id, "CreationDate": None, "Producer": None},
        "svg": {"Description": alt, "Source": run_id, "Date": None, "Creator": None},
    }
    with mpl.rc_context(STYLE):
        for kind, facts in metadata.items():
            atomic_write(stem.with_name(f"{stem.name}.{kind}"), _rendered(figure, kind, 200, facts))


def _rendered(figure: Figure, kind: str, dpi: int, metadata: Mapping[str, str | None]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def _axes(xlabel: str, ylabel: str) -> Axes:
    return _figure(WIDE).add_subplot(xlabel=xlabel, ylabel=ylabel)


def _figure(size: tuple[float, float]) -> Figure:
    """A figure outside pyplot: no window, no global list of figures that grows."""
    figure = Figure(size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _looks() -> Iterator[dict[str, Any]]:
    """Pairs of colour and line style, without end: 49 before one comes again."""
    for i in count():
        yield {"color": PALETTE[i % 7], "linestyle": LINE_STYLES[(i + i // 7) % 7]}
