"""Read any certification log, ours or the papers', into one shape; find out and change the alpha behind it.

Cohen et al. 2019, Salman et al. 2019 and 2020 and Carlini et al. 2023 all write tab-separated `idx label
predict radius correct time`, and differ where it hurts: PREDICT logs have no radius, `time` is a duration or
bare seconds, Carlini's `correct` is a running total, radii are rounded to 3 digits to nearest, and the alpha
is not always the paper's.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from lib.bounds import certified_radius, lower_confidence_bound
from lib.records.row import ABSTAIN

_NEEDED = ("idx", "label", "predict", "correct", "time")
_WHOLE = ("idx", "label", "predict", "correct", "n0", "n", "n_a", "n_b", "seed", "selected", "basePredict")
_REAL = ("radius", "sigma", "alpha")


def read_log(path: str | Path) -> pd.DataFrame:
    """A certification or PREDICT log as a table, whichever paper's code wrote it, finished or not.

    Columns: idx, label, predict (-1 = abstained; int64), radius (float64; a PREDICT log has none), correct
    (bool: predict equals label, also where the file keeps a running total), time (float seconds), then the
    file's others. Half a line at the end of a `.partial` file is left out. ValueError, with file, line and
    content, for anything else that is no log: a radius that is NaN or negative, a wrong number of cells, an
    image that comes twice.
    """
    path = Path(path)
    *lines, rest = path.read_text().split("\n")
    if rest and path.suffix != ".partial":
        lines.append(rest)
    header = lines[0].split("\t") if lines else []
    if not set(_NEEDED) <= set(header):
        raise ValueError(f"{path}, line 1: expected a header with {', '.join(_NEEDED)}; got {header}")
    cells = [line.split("\t") for line in lines[1:]]
    _refuse(path, lines, [len(row) != len(header) for row in cells], f"does not have {len(header)} cells")
    text = pd.DataFrame(cells, columns=header, dtype=str)
    log = pd.DataFrame({name: _parsed(path, lines, name, text[name]) for name in header})
    _refuse(path, lines, log["idx"].duplicated(), "repeats an image")
    log["correct"] = _correct(path, lines, log)
    return log


def detect_alpha(log: pd.DataFrame, sigma: float, n: int, candidates: Sequence[float] = (0.001, 0.01)) -> float | None:
    """The alpha among `candidates` at which `log` was certified, or None where it cannot be told.

    n samples can give only n/2 different radii, a ladder that depends on alpha. Near the top and near 0 its
    steps are wider than the 3 significant digits that the papers print (sigma = 0.25, n = 100,000: 0.953,
    0.935, 0.922 at alpha = 0.001, but 0.978, 0.955, 0.941 at 0.01). The answer is the only candidate whose
    ladder has every radius of the log.
    """
    printed = set(log.loc[log["radius"] > 0, "radius"])
    fitting = [alpha for alpha in candidates if printed <= set(map(_as_printed, _ladder(sigma, n, alpha)))]
    return fitting[0] if len(fitting) == 1 else None


def recertify(log: pd.DataFrame, sigma: float, n: int, alpha_from: float, alpha_to: float) -> pd.DataFrame:
    """`log`, made with n samples at alpha_from, as it would have come out of the same counts at alpha_to.

    Each radius is turned back into the count that gives the nearest one. The papers' logs print 3 digits, so
    the count is an estimate and the new radius no certificate. Images that lose their certificate abstain.
    """
    ladder = _ladder(sigma, n, alpha_from)
    steps_down = len(ladder) - 1 - np.searchsorted((ladder[1:] + ladder[:-1]) / 2, log["radius"])
    answered = log["predict"] != ABSTAIN
    radius = certified_radius(lower_confidence_bound(n - steps_down, n, alpha_to), sigma) * answered
    predict = log["predict"].where(radius > 0, ABSTAIN)
    return log.assign(predict=predict, radius=radius, correct=predict == log["label"])


def _ladder(sigma: float, n: int, alpha: float) -> np.ndarray:
    """Every radius that n samples can certify, ascending: the last is that of the count n, and so on down."""
    radii = certified_radius(_bounds(n, alpha), sigma)
    return radii[radii > 0]


@lru_cache(maxsize=8)  # 0.4 s and 400 KB at n = 100,000, and the logs of a folder share them
def _bounds(n: int, alpha: float) -> np.ndarray:
    return lower_confidence_bound(np.arange(n // 2, n + 1), n, alpha)


def _as_printed(radius: float) -> float:
    return float(f"{radius:.3}")  # the papers' format: 3 significant digits, to nearest


def _parsed(path: Path, lines: list[str], name: str, text: pd.Series) -> pd.Series:
    if name == "time":
        values = _seconds(text)
    elif name in _WHOLE or name in _REAL:
        values = pd.to_numeric(text, errors="coerce").astype(float)
    else:
        return text
    bad = ~np.isfinite(values) | ((values < 0) & (name in _REAL))
    if name in _WHOLE:
        bad |= values != np.floor(values)
    _refuse(path, lines, bad, f"has no valid {name}")
    return pd.to_numeric(text).astype("int64") if name in _WHOLE else values


def _seconds(text: pd.Series) -> pd.Series:
    """Durations `[d days, ]h:mm:ss[.ffffff]` (newer logs) and bare seconds (older ones), in seconds."""
    seconds = pd.to_numeric(text, errors="coerce").astype(float)
    durations = pd.to_timedelta(text.where(seconds.isna()), errors="coerce")
    return seconds.fillna(durations.dt.total_seconds())


def _correct(path: Path, lines: list[str], log: pd.DataFrame) -> pd.Series:
    """predict == label, once `correct` is seen to say this, row by row or as Carlini's running total."""
    hits = log["predict"] == log["label"]
    if not (log["correct"] == hits.cumsum()).all():
        wrong = log["correct"] != hits
        _refuse(path, lines, wrong, "has a correct that is neither predict == label nor its running total")
    return hits


def _refuse(path: Path, lines: list[str], bad: Sequence[bool] | pd.Series, why: str) -> None:
    """ValueError that shows the first line whose row is bad."""
    rows = np.flatnonzero(bad)
    if len(rows):
        raise ValueError(f"{path}, line {rows[0] + 2} {why}: {lines[rows[0] + 1]!r}")
