"""How pytest runs here: nothing cached is used, and nbval compares numbers with a tolerance.

This file is in the project's root because `notebooks/` and `tests/` are collected in one call (`make test` runs several
files of it side by side, each process on one thread):

    python -m pytest --nbval --nbval-current-env tests notebooks

nbval compares the outputs of each cell with the committed ones as text, so the last digit of a float would fail
on another machine. Here a float (anything with a point or an exponent) equals another within RTOL; a cell whose
numbers are estimates says by how much they may differ with a tag, such as `atol-0.03`. Whole numbers and all
other text must be the same.
"""

import math
import os
import re
import shutil
import tempfile

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

RTOL = 1e-3  # three digits: what notebooks print of closed forms, which other BLAS or libm builds round otherwise
ATOL = 1e-9  # for a float beside zero

FLOAT = re.compile(r"((?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?(?!\w|\.\d))")
PICTURE = re.compile(r"data:image/\w+;base64,[\w+/=]+|\bdata-frames=\"[^\"]*\"")  # in HTML; its bytes follow fonts
NOTEBOOKS_ROOT = "KIT_ROOT_OF_NOTEBOOKS"  # environment variable, from the first process to the others
FIGURE = re.compile(r"<Figure size \d+x\d+ with \d+ Axes>")  # the size follows the backend
NOT_COMPARED = ("stderr", "image/svg+xml", "application/pdf")  # warnings; figures, whose bytes follow fonts


class Close(str):
    """Text that equals another where all but the floats is the same and the floats are close."""

    atol = ATOL

    def __eq__(self, other: object) -> bool:
        mine, yours = FLOAT.split(self), FLOAT.split(str(other))  # the odd items are floats
        return (
            len(mine) == len(yours)
            and mine[::2] == yours[::2]
            and all(
                math.isclose(float(a), float(b), rel_tol=RTOL, abs_tol=self.atol)
                for a, b in zip(mine[1::2], yours[1::2], strict=True)
            )
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


exact_sanitize = IPyNbCell.sanitize


def sanitize(cell: IPyNbCell, output: object) -> object:
    """nbval's own sanitizing, then text that compares with the cell's tolerance."""
    output = exact_sanitize(cell, output)
    if not isinstance(output, str):
        return output
    text = Close(PICTURE.sub("data:image", FIGURE.sub("<Figure>", output)))
    tags = cell.cell.metadata.get("tags", [])
    text.atol = max([ATOL, *(float(tag.removeprefix("atol-")) for tag in tags if tag.startswith("atol-"))])
    return text


def pytest_configure(config: pytest.Config) -> None:
    """Kernels and tests see an empty kit root: no data set, checkpoint or record of an earlier run.

    Notebooks take trained weights over from one another. Where pytest-xdist runs them side by side, they have the root
    that the first process made; tests have one a process.
    """
    IPyNbCell.sanitize = sanitize
    config.kit_root = tempfile.mkdtemp(prefix="kit-")
    if not hasattr(config, "workerinput"):
        os.environ[NOTEBOOKS_ROOT] = os.path.join(config.kit_root, "notebooks")
        os.mkdir(os.environ[NOTEBOOKS_ROOT])
    os.environ |= {"KIT_ROOT": config.kit_root, "KIT_PROGRESS": "off"}


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what the kernels wrote."""
    shutil.rmtree(config.kit_root, ignore_errors=True)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Tell nbval what not to compare."""
    if isinstance(collector, IPyNbFile):
        collector.skip_compare += NOT_COMPARED


@pytest.hookimpl(tryfirst=True)  # before nbval starts the kernel
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give kernels their root; fail a cell without an execution count: nbval would run it, compare nothing, pass it."""
    os.environ["KIT_ROOT"] = os.environ[NOTEBOOKS_ROOT] if isinstance(item, IPyNbCell) else item.config.kit_root
    if isinstance(item, IPyNbCell) and item.cell.execution_count is None:
        pytest.fail("the committed cell has no execution count, so nothing would be compared", pytrace=False)
