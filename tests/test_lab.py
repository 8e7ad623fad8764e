"""The lab: copies to work in, which nothing overwrites, and errors that end in a sentence that helps."""

import os
import subprocess
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook, new_output

from lib import lab
from lib.config import NOTEBOOKS
from lib.runner import hints
from lib.runner.lab import prepare

ROOT = Path(__file__).parents[1]
NAME = next(iter(NOTEBOOKS))


@pytest.fixture
def folders(tmp_path):
    """An empty lab, and a folder with one tracked notebook."""
    (tmp_path / "notebooks").mkdir()
    write(tmp_path / "notebooks", "answer = ...")
    return tmp_path / "lab", tmp_path / "notebooks"


def write(folder, source):
    output = new_output("stream", name="stdout", text="Not answered yet")
    notebook = new_notebook(cells=[new_code_cell(source, execution_count=1, outputs=[output])])
    nbformat.write(notebook, folder / f"{NAME}.ipynb")


def cell(folder):
    return nbformat.read(folder / f"{NAME}.ipynb", as_version=4).cells[0]


def edit(folder, source):
    notebook = nbformat.read(folder / f"{NAME}.ipynb", as_version=4)
    notebook.cells[0].source = source
    nbformat.write(notebook, folder / f"{NAME}.ipynb")


def test_a_copy_has_the_cells_and_no_outputs(folders):
    mine, originals = folders
    assert prepare(mine, originals) == [f"{NAME}.ipynb: copied"]
    assert (cell(mine).source, cell(mine).outputs, cell(mine).execution_count) == ("answer = ...", [], None)
    assert prepare(mine, originals) == []


def test_an_answer_stays_even_where_the_original_changes(folders):
    mine, originals = folders
    prepare(mine, originals)
    edit(mine, "answer = 3")
    assert prepare(mine, originals) == []
    write(originals, "answer = ...  # a number")
    assert "yours stays" in prepare(mine, originals)[0]
    assert cell(mine).source == "answer = 3"
    (mine / f"{NAME}.ipynb").write_text("half a fi")
    assert "yours stays" in prepare(mine, originals)[0]


def test_a_copy_that_nobody_has_changed_follows_the_original(folders):
    mine, originals = folders
    prepare(mine, originals)
    write(originals, "answer = ...  # a number")
    assert prepare(mine, originals) == [f"{NAME}.ipynb: copied"]
    assert cell(mine).source == "answer = ...  # a number"


def test_git_ignores_the_copies():
    assert subprocess.run(["git", "check-ignore", "-q", "lab/a.ipynb"], cwd=ROOT, check=False).returncode == 0


def test_jupyterlab_starts_in_the_root_with_the_first_copy_open(monkeypatch, folders):
    monkeypatch.setattr(lab, "LAB", folders[0])
    prepare(*folders)
    assert lab.settings() == [f"--ServerApp.root_dir={ROOT}", f"--LabApp.default_url=/lab/tree/lab/{NAME}.ipynb"]


# ---- errors ----------------------------------------------------------------------------------------------------


def failed(source, tmp_path):
    """The last lines that a cell shows in a kernel of the lab."""
    os.environ["PYTHONSTARTUP"] = str(ROOT / "lib/runner/kernel_start.py")
    notebook = new_notebook(cells=[new_code_cell("names = sorted(vars())"), new_code_cell(source)])
    try:
        NotebookClient(notebook, kernel_name="python3").execute()
    except CellExecutionError:
        pass
    finally:
        del os.environ["PYTHONSTARTUP"]
    (output,) = notebook.cells[1].outputs
    return "\n".join(output.traceback)


def test_a_cell_out_of_order_is_told_to_run_those_above(tmp_path):
    shown = failed("np.zeros(3)", tmp_path)
    assert "'np' comes from a cell above" in shown and "Run All Above Selected Cell" in shown


def test_of_a_wrong_parameter_the_sentence_alone_is_shown(tmp_path):
    shown = failed("from lib.config import Common\nCommon(alpha=10.0)", tmp_path)
    assert "alpha = 10.0: must be less than 1" in shown and "Traceback" not in shown


def test_an_interrupt_is_told_what_is_kept():
    assert "what was finished is kept" in hints.hint(KeyboardInterrupt())
    assert hints.hint(ValueError("a")) == ""


def test_the_extension_loads_into_a_shell():
    shell = InteractiveShell()
    hints.load_ipython_extension(shell)
    assert NameError in shell.custom_exceptions
