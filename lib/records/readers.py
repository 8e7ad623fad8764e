"""Read any certification log, ours or the papers', into one shape; find out and change the alpha behind it.

Cohen et al. 2019, Salman et al. 2019 and 2020, Carlini et al. 2023 and DensePure all write tab-separated `idx label
predict radius correct time`, and differ where it hurts: PREDICT logs have no radius, merged ones no time; `time` is
a duration or bare seconds, `correct` a flag, a word or (Carlini) a running total; radii are rounded to 3 digits or
4 decimals, and the alpha is not always the paper's.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from lib.bounds import certified_radius, lower_confidence_bound
from lib.records.row import ABSTAIN

_NEEDED = ("idx", "label", "predict", "correct")
# Horvath et al. 2022 (adaptive sampling) write 1 or -1 as "radius proved": whether the one radius of the run was.
_WHOLE = ("idx", "label", "predict", "correct", "n0", "n", "n_a", "n_b", "seed", "selected", "basePredict",
          "radius proved")  # fmt: skip
_REAL = ("radius", "sigma", "alpha")


def read_log(path: str | Path) -> pd.DataFrame:
    """A certification or PREDICT log as a table, whichever paper's code wrote it, finished or not, packed (.gz) or not.

    Columns: idx, label, predict (-1 = abstained; int64), radius (float64; a PREDICT log has none), correct
    (bool: predict equals label and is no abstention, also where the file keeps a running total), time (float seconds;
    a merged log has none), then the file's others. Where the file has class names for labels (Salman's log of vision
    APIs), label and predict number them in alphabetical order, and label_name and predict_name keep them.
    Half a line at the end of a `.partial` file and empty lines at the end are left out. ValueError, with file, line
    and content, for anything else that is no log: a radius that is NaN, negative or beside an abstention, a wrong
    number of cells, an image or a column that comes twice, bytes that are no UTF-8.
    """
    path = Path(path)
    lines = _lines(path)
    header = lines[0].split("\t") if lines else []
    if not set(_NEEDED) <= set(header):
        raise ValueError(f"{path}, line 1: expected a header with {', '.join(_NEEDED)}; got {header}")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise ValueError(f"{path}, line 1 has the column {twice!r} twice: {lines[0]!r}")
    cells = [line.split("\t") for line in lines[1:]]
    short = f"does not have {len(header)} cells (a run that was cut off? delete this line)"
    _refuse(path, lines, [len(row) != len(header) for row in cells], short)
    text = _numbered(pd.DataFrame(cells, columns=header, dtype=str))
    log = pd.DataFrame({name: _parsed(path, lines, name, text[name]) for name in text})
    _refuse(path, lines, log["idx"].duplicated(), "repeats an image")
    if "radius" in log:
        _refuse(path, lines, (log["predict"] == ABSTAIN) & (log["radius"] > 0), "abstains with a radius")
    log["correct"] = _correct(path, lines, log)
    return log


def detect_alpha(log: pd.DataFrame, sigma: float, n: int, candidates: Sequence[float] = (0.001, 0.01)) -> float | None:
    """The alpha at which `log` was certified, or None where it cannot be told.

    A log with a column alpha says it. Else: n samples can give only n/2 different radii, a ladder that depends on
    alpha. Near the top and near 0 its steps are wider than what the papers round to (sigma = 0.25, n = 100,000: 0.953,
    0.935, 0.922 at alpha = 0.001, but 0.978, 0.955, 0.941 at 0.01). The answer is the only one of `candidates` whose
    ladder has every radius of the log, at the digits that the log is printed with. ValueError for a log without radii.
    """
    if "alpha" in log and len(log):
        return float(log["alpha"].iloc[0]) if log["alpha"].nunique() == 1 else None
    printed = np.unique(_radii(log)[_radii(log) > 0])
    fitting = [alpha for alpha in candidates if _fits(printed, _ladder(sigma, n, alpha))]
    return fitting[0] if len(fitting) == 1 else None


def recertify(log: pd.DataFrame, sigma: float, n: int, alpha_from: float, alpha_to: float) -> pd.DataFrame:
    """`log`, made with n samples at alpha_from, as it would have come out of the same counts at alpha_to.

    Each radius is turned back into the count that gives the nearest one. The papers' logs print 3 digits, so
    the count is an estimate and the new radius no certificate. Images that lose their certificate abstain.
    ValueError for a log that cannot come from these numbers: it has a radius that they do not give.
    """
    if "n_a" in log:
        raise ValueError("log keeps its counts, so nothing need be guessed: use recount(log, alpha=...)")
    ladder, radii = _ladder(sigma, n, alpha_from), _radii(log)
    _refuse_above(radii.max() if len(log) else 0.0, ladder[-1] if len(ladder) else 0.0, sigma, n, alpha_from)
    if not _fits(np.unique(radii[radii > 0]), ladder):
        raise ValueError(
            f"log has radii that n = {n} samples do not give at sigma = {sigma} and alpha = {alpha_from}: give the "
            "numbers that the log was made with (detect_alpha tells alpha)"
        )
    steps_down = len(ladder) - 1 - np.searchsorted((ladder[1:] + ladder[:-1]) / 2, radii)
    answered = (log["predict"] != ABSTAIN) & bool(len(ladder))
    counts = np.where(answered, n - steps_down, 0)
    radius = pd.Series(certified_radius(lower_confidence_bound(counts, n, alpha_to), sigma), log.index) * answered
    predict = log["predict"].where(radius > 0, ABSTAIN)
    correct = (predict == log["label"]) & (radius > 0)
    return log.assign(
        predict=predict, radius=radius, correct=correct, **({"alpha": alpha_to} if "alpha" in log else {})
    )


def _radii(log: pd.DataFrame) -> np.ndarray:
    if "radius" not in log:
        raise ValueError(f"log has no radius (is it of PREDICT?), only {', '.join(log.columns)}")
    return log["radius"].to_numpy(float)


def _refuse_above(largest: float, top: float, sigma: float, n: int, alpha: float) -> None:
    """The log may round to 3 significant digits, so `largest` may stand half a digit above `top`, not more."""
    if largest > 0 and largest > top + 0.501 * 10.0 ** (np.floor(np.log10(largest)) - 2):
        raise ValueError(
            f"log has a radius of {largest:g}, but n = {n} samples give at most {top:.4g} at sigma = {sigma} and "
            f"alpha = {alpha}: give the numbers that the log was made with"
        )


def _ladder(sigma: float, n: int, alpha: float) -> np.ndarray:
    """Every radius that n samples can certify, ascending: the last is that of the count n, and so on down."""
    radii = certified_radius(_bounds(n, alpha), sigma)
    return radii[radii > 0]


@lru_cache(maxsize=8)  # 0.4 s and 400 KB at n = 100,000, and the logs of a folder share them
def _bounds(n: int, alpha: float) -> np.ndarray:
    return lower_confidence_bound(np.arange(n // 2, n + 1), n, alpha)


def _fits(printed: np.ndarray, ladder: np.ndarray) -> bool:
    """Whether each printed radius is a rung, rounded in one of the ways in which these digits can have come about."""
    slack = 1e-9 * ladder.max(initial=0.0)  # ours are that much below the exact ones
    spans = ((printed - below - slack, printed + above + slack) for below, above in _roundings(printed))
    return any((np.searchsorted(ladder, high, "right") > np.searchsorted(ladder, low)).all() for low, high in spans)


def _roundings(printed: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """By how much the exact value may lie below and above each printed one."""
    numbers = [Decimal(repr(float(radius))).normalize() for radius in printed]
    decimals = max([3, *(-int(number.as_tuple().exponent) for number in numbers)])
    digits = max([3, *(len(number.as_tuple().digits) for number in numbers)])
    significant = np.array([10.0 ** (number.adjusted() + 1 - digits) for number in numbers])
    fixed = np.full(len(numbers), 10.0**-decimals)
    yield significant / 2, significant / 2  # {:.3}: Cohen et al. and most others
    yield fixed / 2, fixed / 2  # 4 decimals: SmoothAdv
    if decimals > 4:
        yield 0 * fixed, fixed  # 6 decimals, rounded down: this kit


def _lines(path: Path) -> list[str]:
    """The header and the whole rows of a file."""
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path} is a damaged .gz file: {error}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number, bad = data[: error.start].count(b"\n"), data.split(b"\n")
        raise ValueError(f"{path}, line {number + 1} is no UTF-8: {bad[number][:200]!r}; save it as UTF-8") from None
    *lines, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if path.suffix != ".partial":
        lines.append(rest)
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _numbered(text: pd.DataFrame) -> pd.DataFrame:
    """`text` with numbers for class names, where all labels and all answers are names."""
    abstain, answered = str(ABSTAIN), [name for name in text["predict"] if name != str(ABSTAIN)]
    names = sorted({*text["label"], *answered})
    if not names or not all(map(_is_name, names)):
        return text
    numbers = {abstain: abstain} | {name: str(number) for number, name in enumerate(names)}
    named = text[["label", "predict"]]
    return text.assign(**{name: named[name].map(numbers) for name in named}, **named.add_suffix("_name"))


def _is_name(cell: str) -> bool:
    """A word, not a number: nan is one."""
    try:
        float(cell)
    except ValueError:
        return any(letter.isalpha() for letter in cell)
    return False


def _parsed(path: Path, lines: list[str], name: str, text: pd.Series) -> pd.Series:
    if name == "correct":
        text = text.replace({"True": "1", "true": "1", "False": "0", "false": "0"})
    if name == "time":
        values = _seconds(text)
    elif name in _WHOLE or name in _REAL:
        values = pd.to_numeric(text, errors="coerce").astype(float)
    else:
        return text
    bad = ~np.isfinite(values) | ((values < 0) & (name in _REAL))
    if name in _WHOLE:
        bad |= (values != np.floor(values)) | (values.abs() >= 2**63)
    _refuse(path, lines, bad, f"has no valid {name}")
    return pd.to_numeric(text).astype("int64") if name in _WHOLE else values


def _seconds(text: pd.Series) -> pd.Series:
    """Durations `[d days, ]h:mm:ss[.ffffff]` (newer logs) and bare seconds (older ones), in seconds."""
    seconds = pd.to_numeric(text, errors="coerce").astype(float)
    durations = pd.to_timedelta(text.where(seconds.isna()), errors="coerce")
    return seconds.fillna(durations.dt.total_seconds())


def _correct(path: Path, lines: list[str], log: pd.DataFrame) -> pd.Series:
    """Answered with the label, once `correct` is seen to say predict == label, by row or as Carlini's running total."""
    same = log["predict"] == log["label"]
    hits = same & (log["predict"] != ABSTAIN)  # an image without a label (-1) is never right
    if not (log["correct"] == same.cumsum()).all():
        wrong = (log["correct"] != same) & (log["correct"] != hits)
        _refuse(path, lines, wrong, "has a correct that is neither predict == label nor its running total")
    return hits


def _refuse(path: Path, lines: list[str], bad: Sequence[bool] | pd.Series, why: str) -> None:
    """ValueError that shows the first line whose row is bad."""
    rows = np.flatnonzero(bad)
    if len(rows):
        raise ValueError(f"{path}, line {rows[0] + 2} {why}: {lines[rows[0] + 1]!r}")
