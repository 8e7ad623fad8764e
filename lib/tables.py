"""Numbers out of certification logs, and tables of them as CSV, Markdown and LaTeX, ready to paste.

A log is a DataFrame as `lib.records.read_log` gives it; an abstention is never correct, whatever label and column
say. Accuracies are fractions; only the tables of published numbers (`published`) are in percent, as papers print them.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from lib.bounds import accuracy_interval
from lib.machine.files import atomic_write
from lib.records.row import ABSTAIN

_PUBLISHED = Path(__file__).parents[1] / "results" / "published"

Format = Callable[[float], str]
Formats = Format | Mapping[object, Format] | None
_plain: Format = "{:g}".format
# What notebooks call a row of a paper's table, by data set. Salman et al. trained the white-box denoiser of their
# CIFAR-10 table with Stab, that of ImageNet with Stab+MSE.
_SERIES = {
    "white-box": {"cifar10": "Stab", "imagenet": "Stab+MSE"},
    **dict.fromkeys(("RS", "trained on noise (Cohen)"), dict.fromkeys(("cifar10", "imagenet"), "trained on noise")),
    "Denoised": {"cifar10": "Stab+MSE denoiser", "imagenet": "Stab+MSE denoiser"},
    "Diffusion": {"cifar10": "one-step diffusion", "imagenet": "one-step diffusion"},
}
# What pdfLaTeX does not read by itself.
_IN_LATEX = {
    "α": r"\alpha", "δ": r"\delta", "ε": r"\varepsilon", "λ": r"\lambda", "σ": r"\sigma", "τ": r"\tau", "Φ": r"\Phi",
    "ℓ": r"\ell", "₂": "_2", "∞": r"\infty", "⋆": r"^\star", "⁻¹": "^{-1}", "≤": r"\le", "≥": r"\ge", "±": r"\pm",
    "×": r"\times", "−": "-", "→": r"\to", "✗": r"\times",
}  # fmt: skip


def certified_accuracy(log: pd.DataFrame, radii: ArrayLike) -> np.ndarray:
    """The fraction of images that are correct with radius >= r, for each r of `radii` (Cohen et al. 2019, 4).

    Shape of `radii`, which are >= 0 (ValueError otherwise). At r = 0 this is the accuracy of the smoothed
    classifier, abstentions counted as wrong.
    """
    log, radii = _certified(log), np.asarray(radii, float)
    if not (radii >= 0).all():
        raise ValueError(f"radii must be >= 0; got {radii}")
    reached = np.where(log["correct"], log["radius"], -1.0)  # an image that is not correct reaches no radius
    return (reached >= radii[..., None]).mean(axis=-1)


def average_certified_radius(log: pd.DataFrame) -> float:
    """The mean radius, with 0 for images that are wrong or abstained (ACR; Zhai et al. 2020)."""
    log = _certified(log)
    return float((log["radius"] * log["correct"]).mean())


def abstention_rate(log: pd.DataFrame) -> float:
    """The fraction of images on which the smoothed classifier abstained; PREDICT logs are welcome."""
    return float((_nonempty(log)["predict"] == ABSTAIN).mean())


def accuracy_table(logs: Mapping[str, pd.DataFrame], radii: ArrayLike) -> pd.DataFrame:
    """Certified accuracy as fractions: a row a log, named by its key, and a column a radius."""
    columns = pd.Index(np.atleast_1d(radii).astype(float), name="radius")
    return pd.DataFrame([certified_accuracy(log, columns) for log in logs.values()], list(logs), columns)


def summary(logs: Mapping[str, pd.DataFrame], radii: ArrayLike) -> pd.DataFrame:
    """`accuracy_table` with two columns more: ACR, the average certified radius, and abstained, a fraction."""
    rows = list(logs.values())
    return accuracy_table(logs, radii).assign(
        ACR=[average_certified_radius(log) for log in rows], abstained=[abstention_rate(log) for log in rows]
    )


def paired(logs: Mapping[str, pd.DataFrame], control: str, radius: float) -> pd.DataFrame:
    """Each log against the one named `control`, on the same images: how many it certifies at `radius` that the control
    does not, how many the other way round, and the p-value of McNemar's exact test that both are equally likely.

    Index: the other logs' names; columns gained, lost, p. ValueError for logs of other images, and for a `control` that
    is none of them.
    """
    if control not in logs:
        raise ValueError(f"control must be one of {', '.join(map(repr, logs))}; got {control!r}")
    reached = {name: _reached(log, radius) for name, log in logs.items()}
    rows = {}
    for name in (name for name in logs if name != control):
        if not logs[name]["idx"].reset_index(drop=True).equals(logs[control]["idx"].reset_index(drop=True)):
            raise ValueError(f"{name!r} and {control!r} must be logs of the same images, in the same order")
        gained = int((reached[name] & ~reached[control]).sum())
        lost = int((reached[control] & ~reached[name]).sum())
        rows[name] = (gained, lost, binomtest(gained, gained + lost).pvalue if gained + lost else 1.0)
    return pd.DataFrame.from_dict(rows, "index", columns=["gained", "lost", "p"])


def _reached(log: pd.DataFrame, radius: float) -> np.ndarray:
    log = _certified(log)
    return (log["correct"] & (log["radius"] >= radius)).to_numpy()


def in_percent(logs: Mapping[str, pd.DataFrame], radii: ArrayLike) -> pd.DataFrame:
    """Logs in the form of `published`, which `as_printed` takes: method, radius, certified_accuracy, clean_accuracy.

    And low and high, the ends of the 95 % interval over the choice of the images (Clopper-Pearson).
    """
    table, clean = accuracy_table(logs, radii) * 100, accuracy_table(logs, 0.0)[0.0] * 100
    long = table.rename_axis("method").reset_index().melt("method", var_name="radius", value_name="certified_accuracy")
    images = long["method"].map({name: len(log) for name, log in logs.items()})
    low, high = accuracy_interval((long["certified_accuracy"] / 100 * images).round(), images)
    return long.assign(clean_accuracy=long["method"].map(clean), low=100 * low, high=100 * high)


def answer_table(answers: Mapping[int, np.ndarray], labels: np.ndarray) -> pd.DataFrame:
    """What PREDICT answered, as fractions correct, wrong and abstained: a row for each array (N,) of `answers`."""
    rows = {
        name: [(given == labels).mean(), ((given != labels) & (given != ABSTAIN)).mean(), (given == ABSTAIN).mean()]
        for name, given in answers.items()
    }
    return pd.DataFrame.from_dict(rows, "index", columns=["correct", "wrong", "abstained"])


def beside_published(name: str, logs: Mapping[str, pd.DataFrame], radii: ArrayLike, paper: str) -> pd.DataFrame:
    """`accuracy_table` above the paper's own on CIFAR-10 and ImageNet, all as fractions; index: data, noise.

    What was not published is missing. `paper`: the start of the names of its two tables, such as "cohen2019".
    """
    blocks = {name: accuracy_table(logs, radii)}
    for dataset in ("cifar10", "imagenet"):
        theirs = published(f"{paper}_{dataset}")
        theirs["noise"] = [f"σ = {sigma}" for sigma in theirs["sigma"]]
        wide = theirs.pivot(index="noise", columns="radius", values="certified_accuracy")
        blocks[f"{dataset}, {paper[:-4].title()} et al."] = wide / 100
    return pd.concat(blocks, names=["data", "noise"])


def envelope(logs: Mapping[str, pd.DataFrame], radii: ArrayLike) -> pd.DataFrame:
    """The best log at each radius, as the papers' tables print it: the upper envelope of their curves.

    Index: radius. Columns: log (the winner's name), clean_accuracy (its accuracy at r = 0, the number that
    the papers put in parentheses) and certified_accuracy, both fractions. The first of equals wins; where
    nothing is certified no log does, and the first two are missing. The choice is made on the very images
    that are reported, so an envelope flatters, and the more logs the more.
    """
    table, clean = accuracy_table(logs, radii), accuracy_table(logs, 0.0)[0.0]
    best = table.max()
    winner = table.idxmax().where(best > 0)
    clean_accuracy = winner.map(clean).astype(float)
    return pd.DataFrame({"log": winner, "clean_accuracy": clean_accuracy, "certified_accuracy": best})


def held_against(log: pd.DataFrame, answers: Mapping[int, int]) -> pd.DataFrame:
    """The log as if `answers` (image id -> class) were the labels: what is correct is then agreement with them.

    KeyError for an image without an answer.
    """
    labels = np.array([answers[int(image)] for image in log["idx"]])
    return log.assign(label=labels, correct=(log["predict"].to_numpy() == labels).astype(int))


def percent(fraction: float) -> str:
    """A fraction as percent with one decimal, to nearest: an estimate, not a certificate."""
    return f"{100 * fraction:.1f}"


def to_markdown(table: pd.DataFrame, formats: Formats = None) -> str:
    """`table` as GitHub Markdown, numbers to the right; arguments as for `save`."""
    text = _as_text(table, formats)
    rule = ["---:" if right else "---" for right in right_aligned(text)]
    rows = [list(text.columns), rule, *text.to_numpy().tolist()]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def to_latex(table: pd.DataFrame, formats: Formats = None) -> str:
    """`table` as a tabular of pdfLaTeX with the package booktabs, numbers to the right; arguments as for `save`."""
    text = _as_text(table, formats)
    sides = "".join("r" if right else "l" for right in right_aligned(text))
    tabular = text.to_latex(index=False, escape=True, column_format=sides)
    for sign, command in _IN_LATEX.items():
        tabular = tabular.replace(sign, f"${command}$")
    return "% \\usepackage{booktabs}\n" + tabular


def right_aligned(table: pd.DataFrame) -> list[bool]:
    """For each column whether it holds numbers: most cells that say anything begin with one, as 01_train does not."""
    said = [[str(cell) for cell in table[name] if str(cell).strip("–")] for name in table]
    return [2 * sum(bool(re.match(r"[(+-]?\d[\d.,]*(?!\w)", cell)) for cell in cells) > len(cells) for cells in said]


def save(table: pd.DataFrame, path_stem: str | Path, formats: Formats = None) -> list[Path]:
    """Write `table` as path_stem.csv (all digits), and to be read .word.csv, .md and .tex; returns the four paths.

    `formats` prints the floats of every column, or of the columns it names: {"accuracy": percent}. Without it fractions
    are in percent with one decimal, in the columns headed by a radius and in "abstained", and ACR has three decimals.
    What is missing is printed as a dash; an index that only numbers the rows is left out.
    """
    printed = "\ufeff" + _as_text(table, formats).to_csv(index=False)  # the mark tells Word and Excel that it is UTF-8
    content = {".csv": table.to_csv(index=_has_names(table)), ".word.csv": printed}
    content |= {".md": to_markdown(table, formats), ".tex": to_latex(table, formats)}
    paths = [Path(f"{path_stem}{suffix}") for suffix in content]
    for path, text in zip(paths, content.values()):
        atomic_write(path, text)
    return paths


def published(name: str) -> pd.DataFrame:
    """The numbers in results/published/<name>.csv, one a row, in percent; its comments name the source.

    ValueError, with the names there are, for an unknown `name`.
    """
    path = _PUBLISHED / f"{name}.csv"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in _PUBLISHED.glob("*.csv")))
        raise ValueError(f"name must be one of {known}; got {name!r}")
    return pd.read_csv(path, comment="#")


def paper_rows(paper: str, data: str) -> pd.DataFrame:
    """A paper's table on one data set, cell by cell: row, radius, certified_accuracy in percent, without its zeros.

    `paper`: "cohen2019", whose rows are noise levels ("σ = 0.5"), "salman2020" (of its first classifier) or
    "comparison", whose rows are methods, each cell at its best noise level. Empty where there is no table of `data`.
    ValueError for a paper without a table.
    """
    columns = ["row", "radius", "certified_accuracy"]
    if not (_PUBLISHED / f"{paper}_{data}.csv").exists():
        published(f"{paper}_cifar10")  # or a ValueError
        return pd.DataFrame(columns=columns)
    table = published(f"{paper}_{data}").query("certified_accuracy > 0")
    if "classifier" in table:
        table = table[table["classifier"] == table["classifier"].iloc[0]]
    names = table["method"] if "method" in table else [f"σ = {sigma:g}" for sigma in table["sigma"]]
    return table.assign(row=names)[columns]


def points_of(names: Iterable[str], paper: str, data: str) -> dict[str, pd.DataFrame]:
    """Which of the series `names` a paper's table has numbers for: {name: its rows of `paper_rows`}.

    A series belongs to the row that its name begins with, "σ = 0.5" or "white-box, K = 3", or that _SERIES calls so. Of
    several the last: black-box denoisers come with more and more surrogates.
    """
    table, found = paper_rows(paper, data), {}
    starts = {_SERIES.get(row, {}).get(data, row): row for row in table["row"]} | {row: row for row in table["row"]}
    for name in names:
        called = re.sub(r"(?<=σ = )[\d.]+", lambda level: f"{float(level[0]):g}", name)  # 1.0 is 1
        held = [start for start in starts if called == start or called.startswith(f"{start},")]
        if held:
            found[starts[max(held, key=len)]] = name
    return {name: table[table["row"] == row] for row, name in found.items()}


def as_printed(numbers: pd.DataFrame) -> pd.DataFrame:
    """Numbers in percent as the papers print them, "(clean) certified": a row a method, a column a radius.

    `numbers`: columns radius, certified_accuracy and clean_accuracy, perhaps low and high, which follow in brackets,
    and any others, which say what the row is about, as `published` and `in_percent` give them. Rows keep their order. A
    radius without a number is missing; where no clean accuracy is known the parentheses are.
    """
    said = {"certified_accuracy", "clean_accuracy", "low", "high"}
    what = [column for column in numbers if column not in said | {"radius"}]
    cells = numbers.assign(cell=[_printed(**row) for row in numbers[[*said & {*numbers}]].to_dict("records")])
    cells = cells.pivot(index=what, columns="radius", values="cell")
    rows = list(dict.fromkeys(numbers[what].itertuples(index=False, name=None)))
    return cells.loc[rows if len(what) > 1 else [row[0] for row in rows]]


def _printed(certified_accuracy: float, clean_accuracy: float, low: float = np.nan, high: float = np.nan) -> str:
    clean = "" if pd.isna(clean_accuracy) else f"({clean_accuracy:.1f}) "
    return f"{clean}{certified_accuracy:.1f}" + ("" if pd.isna(low) else f" [{low:.0f}, {high:.0f}]")


def _certified(log: pd.DataFrame) -> pd.DataFrame:
    if "radius proved" in log and "radius" not in log:
        advice = "for its one radius r: log.assign(radius=r * (log['radius proved'] > 0))"
        raise ValueError(f"log has no radius, only whether one was proved; {advice}")
    if "radius" not in log:
        raise ValueError(f"log has no radius (is it of PREDICT?), only {', '.join(log.columns)}")
    return _nonempty(log).assign(correct=log["correct"].astype(bool) & (log["predict"] != ABSTAIN))


def _nonempty(log: pd.DataFrame) -> pd.DataFrame:
    if log.empty:
        raise ValueError("log has no rows")
    return log


def _has_names(table: pd.DataFrame) -> bool:
    return not isinstance(table.index, pd.RangeIndex)


def _usual(heading: object) -> Format:
    """How the floats of a column are printed: a radius or "abstained" heads fractions."""
    if heading == "abstained" or re.fullmatch(r"(r = )?\d+(\.\d+)?", str(heading)):
        return percent
    return "{:.3f}".format if heading == "ACR" else _plain


def _as_text(table: pd.DataFrame, formats: Formats) -> pd.DataFrame:
    """Every heading and cell as text, the index as the first column where it names the rows."""
    by_column = formats if isinstance(formats, Mapping) else {name: formats or _usual(name) for name in table}
    flat = table.rename_axis(columns=None)
    if _has_names(flat):
        flat = flat.rename_axis(index=flat.index.name or "").reset_index()
    text = {_cell(name): [_cell(value, by_column.get(name, _plain)) for value in flat[name]] for name in flat}
    return pd.DataFrame(text, dtype=str)


def _cell(value: object, form: Format = _plain) -> str:
    if pd.isna(value):
        return "–"
    return form(value) if isinstance(value, float) else str(value)
