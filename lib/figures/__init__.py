"""Figures: functions of records and numbers -> matplotlib Figure, and one way to publish them.

Line styles carry what colours carry, for black and white. Nothing here opens a window or touches matplotlib's global
state.
"""

from lib.figures.curves import accuracy_curves, against_control, histograms, lines, votes
from lib.figures.images import image_grid
from lib.figures.publishing import publish, save, slider
from lib.figures.style import LEVELS, METHODS, PALETTE, STYLE

__all__ = [
    "LEVELS", "METHODS", "PALETTE", "STYLE", "accuracy_curves", "against_control", "histograms", "image_grid", "lines",
    "publish", "save", "slider", "votes",
]  # fmt: skip
