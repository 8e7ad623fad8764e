"""Images in a grid, with their names, captions and marks."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from lib.figures.style import STYLE, new_figure

RED, CROSS = "#CC0000", "✗"


def image_grid(
    rows: Mapping[str, Tensor],
    columns: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
    *,
    wrong: ArrayLike | None = None,
    title: str = "",
) -> Figure:
    """Images in a grid, a named row each: {name: (N, C, H, W) in about [0, 1]}, with N = len(columns).

    Values outside [0, 1], as noisy images have, are shown clipped. `captions[row][column]` stands under an image. Where
    `wrong[row][column]` holds, the image has a red frame and a cross before its caption: colour alone says nothing.
    """
    crossed = np.zeros((len(rows), len(columns)), bool) if wrong is None else np.asarray(wrong, bool)
    if crossed.shape != (len(rows), len(columns)):
        raise ValueError(f"wrong must have a row for each of {len(rows)} rows of {len(columns)}; got {crossed.shape}")
    texts = captions or [[""] * len(columns)] * len(rows)
    captioned = captions is not None or bool(crossed.any())
    with mpl.rc_context(STYLE | {"axes.grid": False, "font.size": 11}):
        height = (1.35 + 0.22 * captioned) * len(rows) + 0.4 + 0.3 * bool(title)
        figure = new_figure((1.35 * len(columns) + 1.2, height))
        figure.suptitle(title)
        grid = figure.subplots(len(rows), len(columns), squeeze=False)
        for i, (name, images) in enumerate(rows.items()):
            for j, image in enumerate(images.detach().cpu().clamp(0, 1)):
                axes = grid[i, j]
                axes.imshow(image.movedim(0, -1).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
                axes.set(xticks=[], yticks=[], title=columns[j] if i == 0 else "")
                axes.spines[:].set_visible(bool(crossed[i, j]))
                if crossed[i, j]:
                    axes.spines[:].set(color=RED, linewidth=3)
                if captioned:
                    axes.set_xlabel(f"{CROSS} {texts[i][j]}".strip() if crossed[i, j] else texts[i][j])
            grid[i, 0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure
