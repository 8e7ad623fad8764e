"""The tolerance hook of conftest.py, seen through nbval: one notebook, a cell for each case."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from processes import PATIENCE

CONFTEST = Path(__file__).parents[1] / "conftest.py"


def printed(committed, now, *tags, count=1):
    """A cell whose committed output is one text, and that prints another when it runs."""
    cell = new_code_cell(f"print({now!r})", execution_count=count, metadata={"tags": list(tags)})
    if count is not None:
        cell.outputs = [new_output("stream", name="stdout", text=f"{committed}\n")]
    return cell


def displayed(kind, committed, now):
    """A cell whose committed output has a MIME type."""
    source = f"from IPython.display import display\ndisplay({{{kind!r}: {now!r}}}, raw=True)"
    return new_code_cell(source, execution_count=1, outputs=[new_output("display_data", {kind: committed})])


def silent(source):
    """A cell that was committed without outputs."""
    return new_code_cell(source, execution_count=1)


TABLE = "<table><td>{}</td></table>"
PICTURE = '<figure><img alt="a" src="data:image/png;base64,{0}"><input data-frames="{0}"></figure>'
FIGURE = "<Figure size {}x480 with 1 Axes>"
CASES = {
    "the same text": ("passed", printed("radius 0.25 at n = 1000", "radius 0.25 at n = 1000")),
    "a float within the tolerance": ("passed", printed("radius 0.123456789", "radius 0.123456001")),
    "a small float within it": ("passed", printed("p = 1.2345e-07", "p = 1.2344e-07")),
    "a table's float within it": ("passed", displayed("text/html", TABLE.format(0.5), TABLE.format(0.50001))),
    "a float outside the tolerance": ("failed", printed("radius 1.0", "radius 1.01")),
    "a small float outside it": ("failed", printed("p = 1.2e-07", "p = 1.3e-07")),
    "a table's float outside it": ("failed", displayed("text/html", TABLE.format(0.5), TABLE.format(0.51))),
    "another sign": ("failed", printed("margin 0.5", "margin -0.5")),
    "another text": ("failed", printed("radius 0.25", "margin 0.25")),
    "another whole number": ("failed", printed("10000 samples", "10001 samples")),
    "another version": ("failed", printed("release 2.14.1", "release 2.14.2")),
    "one float more": ("failed", printed("0.5", "0.5 0.5")),
    "nothing printed": ("failed", printed("0.5", "")),
    "an estimate within its tag": ("passed", printed("accuracy 0.94", "accuracy 0.96", "atol-0.03")),
    "an estimate outside its tag": ("failed", printed("accuracy 0.94", "accuracy 0.98", "atol-0.03")),
    "a new warning": ("passed", silent("import sys; print('old', file=sys.stderr)")),
    "a failing assert": ("failed", silent("assert 1 == 2")),
    "another SVG": ("passed", displayed("image/svg+xml", "<svg>1</svg>", "<svg>2</svg>")),
    "another picture in HTML": ("passed", displayed("text/html", PICTURE.format("iVB+/="), PICTURE.format("UklG"))),
    "another caption": ("failed", displayed("text/html", PICTURE.format("iVB"), PICTURE.replace("a", "b").format("i"))),
    "another figure size": ("passed", displayed("text/plain", FIGURE.format(9), FIGURE.format(8))),
    "a cell that was never run": ("error", printed("", "0.5", count=None)),
    "silent progress": ("passed", silent("import os; assert os.environ['KIT_PROGRESS'] == 'off'")),
    "an empty kit root": ("passed", silent("assert os.listdir(os.environ['KIT_ROOT']) == []")),
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What pytest says of each case: passed or failed."""
    folder = tmp_path_factory.mktemp("nbval")
    shutil.copy(CONFTEST, folder)
    nbformat.write(new_notebook(cells=[cell for _, cell in CASES.values()]), folder / "cases.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-rA", "--color=no"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("KIT_", "PYTEST"))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    lines = re.findall(r"^(PASSED|FAILED|ERROR) cases\.ipynb::Cell (\d+)", done.stdout, re.MULTILINE)
    found = {int(cell): outcome.lower() for outcome, cell in lines}
    assert len(found) == len(CASES), done.stdout + done.stderr
    return [found[i] for i in range(len(CASES))]


@pytest.mark.parametrize("case", CASES)
def test_that_nbval_judges(case, outcomes):
    expected, _ = CASES[case]
    assert outcomes[list(CASES).index(case)] == expected
