"""What the runner refuses before anything starts, and what a run depends on."""

import json

import nbformat
import pytest
from tiny_notebook import WORK, Kit, write_notebook

from lib import run
from lib.runner import jobs

pytestmark = pytest.mark.usefixtures("tiny_is_known")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "raet", "0.1"], "tiny: unknown parameter: 'raet'; did you mean 'rate'?"),
        (["-p", "rate", "high"], "tiny: rate = 'high': float expected, not str"),
        (["-p", "n", "10.5"], "tiny: n = 10.5: int expected, not float"),
        (["-p", "rate", "2"], "tiny: rate = 2.0: must be less than 1"),
        (["-p", "steps", "[1, 0]"], "tiny: steps[1] = 0: must be at least 1"),
        (["-p", "steps", "3"], "tiny: steps = 3: list of int expected"),
        (["--profile", "digit"], "profile 'digit': no file"),
        (["nowhere.ipynb"], "notebook 'nowhere.ipynb': no file"),
        (["02_nothing"], "notebook '02_nothing': no file"),
        (["-p", "n", "5", "-p", "rate", "0.1", "-p", "n", "6"], "-p n is there 2 times, with 5, 6: keep one"),
        (["-p", "steps", "[010]"], "tiny: steps = '[010]': line 1: 010 is another number"),
        (["-p", "data_dir", "/dev/null"], "tiny: data_dir = '/dev/null': /dev/null is no folder"),
        (["-p", "dataset", "imagenet"], "tiny: dataset = 'imagenet': no val/"),
    ],
)
def test_wrong_input_is_refused_in_one_line_and_nothing_is_written(words, message, tmp_path, capsys):
    kit = Kit(tmp_path, WORK)
    assert kit(*words) == 2
    said = capsys.readouterr().err
    assert f"lib.run: {message}" in said
    assert (len(said.splitlines()), kit.runs.exists()) == (1, False)


def test_a_notebook_without_a_dataclass_is_refused(tmp_path, capsys):
    kit = Kit(tmp_path, WORK)
    (tmp_path / "tiny.ipynb").rename(tmp_path / "other.ipynb")
    assert run.main([str(tmp_path / "other.ipynb")]) == 2
    assert "unknown notebook: 'other'" in capsys.readouterr().err and not kit.runs.exists()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("rate: float = 0.5  # help\n", "", "differ in rate"),
        ("rate: float", "speed: float", "differ in rate, speed"),
        ("0.5", "1 / 2", "tiny: "),
        ("rate: float =", "rate =", "`name: type = literal` expected"),
    ],
)
def test_a_parameters_cell_that_does_not_fit_is_refused(before, after, message, tmp_path, capsys):
    kit = Kit(tmp_path, WORK)
    path = tmp_path / "tiny.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert before in notebook.cells[1].source
    notebook.cells[1].source = notebook.cells[1].source.replace(before, after)
    nbformat.write(notebook, path)
    assert kit() == 2
    assert message in capsys.readouterr().err and not kit.runs.exists()


def test_the_kernel_of_another_interpreter_is_refused(monkeypatch, tmp_path, capsys):
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    argv = ["/elsewhere/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "p", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    kit = Kit(tmp_path, WORK)
    assert kit() == 2
    assert "/elsewhere/bin/python" in capsys.readouterr().err and not kit.runs.exists()


def test_naming_no_notebook_is_refused():
    with pytest.raises(SystemExit, match="2"):
        run.main(["--profile", "digits"])


def test_the_inputs_are_the_sources_of_notebook_and_library_but_no_outputs(tmp_path, monkeypatch):
    kit = Kit(tmp_path, WORK)
    library = tmp_path / "lib" / "deep"
    library.mkdir(parents=True)
    monkeypatch.setattr(jobs, "PROJECT_ROOT", tmp_path)
    hashes = [jobs.inputs_hash(kit.job())]
    notebook = nbformat.read(tmp_path / "tiny.ipynb", as_version=4)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="1")]
    nbformat.write(notebook, tmp_path / "tiny.ipynb")
    assert jobs.inputs_hash(kit.job()) == hashes[0]
    for name, text in (("a.py", "1"), ("a.py", "2"), ("b.py", "")):
        (library / name).write_text(text)
        hashes.append(jobs.inputs_hash(kit.job()))
    write_notebook(tmp_path, WORK + "  # a word")
    hashes.append(jobs.inputs_hash(kit.job()))
    assert len(set(hashes)) == 5
