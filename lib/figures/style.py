"""How figures look: colours that colour-blind readers can tell apart, and one look for each method and noise level."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's, with gold and sky darkened: every colour has a contrast of at least 3 to 1 against white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B87F00", "#2A8FCB", "#000000")
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
STYLE: dict[Any, Any] = {
    "font.size": 13, "axes.titlesize": 14, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.alpha": 0.3, "lines.linewidth": 2.2, "legend.frameon": False, "figure.constrained_layout.use": True,
    "svg.hashsalt": "kit", "svg.fonttype": "none", "pdf.fonttype": 42,
}  # fmt: skip
WIDE = (9.6, 5.4)  # inches; 16:9

BLUE, ORANGE, GREEN, PINK, GOLD, SKY, BLACK = PALETTE
INDIGO = "#332288"
# A noise level has its colour in every notebook: from light to dark as the noise grows, so that grey print keeps them.
LEVELS = {0.0: "#949494", 0.12: GOLD, 0.25: ORANGE, 0.5: "#882255", 1.0: BLACK}
# So has a method; the longest of these words that a name holds counts. White-box is Stab+MSE with access to f.
METHODS = {
    "no denoiser": BLACK, "undefended": BLACK, "MSE": SKY, "Stab": PINK, "Clf": "#882255", "Stab+MSE": BLUE,
    "white-box": BLUE, "black-box": GOLD, "trained on noise": ORANGE, "one-step diffusion": GREEN, "Diffusion": GREEN,
    "RS": ORANGE, "Denoised": BLUE, "Lee": PINK,
    "Gaussian": ORANGE, "Gaussian copies": "#6E6E6E", "Stability training": "#7A4A1E", "SmoothAdv": "#AA4499",
    "SmoothAdv (DDN)": "#CC6677", "Consistency": "#117733", "MACER": "#6B6B00", "SmoothMix": "#0F7F8F",
    "CAT-RS": "#882255", "Boosting": BLUE, "DRT": INDIGO, "ACES": "#C04000", "PixelDP": BLACK, "constant": BLACK,
    "Lecuyer et al.": BLACK, "Li et al.": "#7A4A1E", "Cohen et al.": BLUE, "runner-up bounded": "#117733",
    "deterministic": "#882255", "smoothing": ORANGE, "uniform": "#117733", "Laplace": "#AA4499", "both levels": BLUE,
    "distillation": PINK, "bit depth": SKY, "median": ORANGE, "detector": "#882255", "adversarial training": INDIGO,
}  # fmt: skip
STYLES = {
    GOLD: LINE_STYLES[3],
    ORANGE: "--",
    "#882255": "-",
    BLACK: "-.",
    SKY: LINE_STYLES[4],
    PINK: ":",
    GREEN: "-",
    INDIGO: (0, (8, 2)),
    "#117733": "--",  # like GREEN
    "#0F7F8F": ":",  # like BLUE
    "#7A4A1E": ":",
    "#6B6B00": ":",
    "#AA4499": "-.",
}


def looks(names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """{color, linestyle} for each series of one figure: those of its noise level or its method, where it names one.

    "σ = 0.25" in a name counts before a method. Of two series with one colour the second gets another line style; where
    a bound is named behind a comma ("MSE, runner-up bounded"), that is dashed and the usual one is solid. The others
    take the palette's colours in turn, the first seven those that no named series has: 49 looks without a twin.
    """
    names = list(names)
    known = [known_colour(name) for name in names]
    free = [colour for colour in PALETTE if colour not in known] or list(PALETTE)
    turns = [(colour, style) for i in range(7) for colour, style in zip(free, LINE_STYLES[i:] + LINE_STYLES[:i])]
    given: list[tuple[str, Any]] = []
    two_bounds = any(", runner-up bounded" in name for name in names)
    for name, colour in zip(names, known):
        own = ("--" if "runner-up bounded" in name else "-") if two_bounds else STYLES.get(colour, "-")
        mine = [(colour, style) for style in (own, *LINE_STYLES)] if colour else turns
        look = next((one for one in mine if one not in given), mine[len(given) % len(mine)])
        given.append(look)
        yield {"color": look[0], "linestyle": look[1]}


def known_colour(name: str) -> str:
    """The colour of the noise level or the method that a series names, or ""."""
    level = re.search(r"σ = (\d+(?:\.\d+)?)", name)
    if level and float(level[1]) in LEVELS:
        return LEVELS[float(level[1])]
    held = [word for word in METHODS if re.search(rf"(?<![\w+]){re.escape(word)}(?![\w+])", name)]
    return METHODS[max(held, key=len)] if held else ""


def axes_of(xlabel: str, ylabel: str) -> Axes:
    """Axes that fill a wide figure."""
    return new_figure(WIDE).add_subplot(xlabel=xlabel, ylabel=ylabel)


def new_figure(size: tuple[float, float]) -> Figure:
    """A figure outside pyplot: no window, no global list of figures that grows."""
    figure = Figure(size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
