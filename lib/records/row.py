"""One row of the certification log: what it holds, and how it stands in the file."""

import re
import zlib
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import get_type_hints

from lib.bounds import ABSTAIN, round_down

COLUMNS = (
    "idx", "label", "predict", "radius", "correct", "time",  # what the papers' analysis code reads
    "n0", "n", "n_a", "n_b", "sigma", "alpha", "seed", "selected", "noise", "bound", "image", "check",
)  # fmt: skip
TIME = COLUMNS.index("time")  # no part of the check: a run that is repeated differs in it alone
HEADER = "\t".join(COLUMNS) + "\n"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One certified image. `n_a` and `n_b` count, out of `n`, the selected and the next best class."""

    idx: int
    label: int
    predict: int  # ABSTAIN where nothing is certified
    radius: float  # in pixel units of [0, 1], l2 for Gaussian noise; 0 where nothing is certified
    time: float  # seconds
    n0: int
    n: int
    n_a: int
    n_b: int
    sigma: float
    alpha: float
    seed: int
    selected: int  # the class that the n0 samples chose: `predict`, or what it would have been at a larger alpha
    noise: str  # by its name in lib.sampling, such as gaussian
    bound: str  # by its name in lib.bounds, such as clopper-pearson: with it the counts give the radius
    image: str  # 16 hex digits of the SHA-256 of pixels and label, so that the row belongs to no other image

    def __post_init__(self) -> None:
        """ValueError for what no certificate can hold."""
        if not (isfinite(self.radius) and self.radius >= 0) or (self.predict == ABSTAIN and self.radius > 0):
            raise ValueError(f"radius must be finite, >= 0, and 0 where predict is {ABSTAIN}; got {self}")
        if self.predict not in (ABSTAIN, self.selected):
            raise ValueError(f"predict must be selected or {ABSTAIN}; got {self}")
        if min(self.n_a, self.n_b) < 0 or self.n_a + self.n_b > self.n:
            raise ValueError(f"n_a and n_b must be counts out of n; got {self}")
        if self.label < 0 or not re.fullmatch("[0-9a-f]{16}", self.image):
            raise ValueError(f"label must be a class, image 16 hex digits; got {self}")

    @property
    def correct(self) -> bool:
        """Whether the smoothed classifier answered with the label."""
        return self.predict == self.label and self.predict != ABSTAIN

    def line(self) -> str:
        """The row as it stands in the file: the radius rounded down to 6 decimals; last a CRC-32 of all but time."""
        cells = {field.name: getattr(self, field.name) for field in fields(self)}
        cells |= {"radius": f"{round_down(self.radius, 6):.6f}", "time": f"{self.time:.3f}"}
        texts = [str(cells.get(name, int(self.correct))) for name in COLUMNS[:-1]]
        check = zlib.crc32("\t".join(texts[:TIME] + texts[TIME + 1 :]).encode())
        return "\t".join([*texts, f"{check:08x}"]) + "\n"

    @classmethod
    def parse(cls, line: str) -> "Row":
        """The row that `line`, without its newline, is; ValueError unless `Row.line` would write it so."""
        cells = dict(zip(COLUMNS, line.split("\t"), strict=True))
        row = cls(**{name: kind(cells[name]) for name, kind in _KINDS.items()})
        if row.line() != line + "\n":
            raise ValueError(f"its values are written {row.line()!r}")
        return row


_KINDS = get_type_hints(Row)  # field -> int, float or str


def read_rows(path: Path) -> tuple[list[Row], int]:
    """The rows of the whole lines of `path`, and how many bytes these lines are.

    Half a line at the end of an unfinished file is what a killed writer leaves; anywhere else, as any other
    line that `Row.line` would not have written, it is a ValueError with the line's number and content.
    """
    *lines, rest = path.read_bytes().decode("latin-1").split("\n")  # a character a byte, whatever the bytes
    if lines and lines[0] + "\n" != HEADER:
        raise ValueError(f"{path}, line 1: expected the columns {COLUMNS}, got {lines[0]!r}")
    if rest and path.suffix != ".partial":
        raise ValueError(f"{path}, line {len(lines) + 1} is cut off: {rest!r}")
    rows = [_parsed(path, number, line) for number, line in enumerate(lines[1:], start=2)]
    return rows, sum(len(line) + 1 for line in lines)


def _parsed(path: Path, number: int, line: str) -> Row:
    try:
        return Row.parse(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number} is no row of a record: {line!r} ({error})") from None
