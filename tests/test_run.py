"""The runner, on notebooks of a few cells: what it refuses, what it leaves behind, what it repeats."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib import environment, jobs, run
from lib.config import NOTEBOOKS, Common, field_names, parameter


@dataclass(frozen=True)
class Tiny(Common):
    """The parameters of the notebooks of this file."""

    rate: float = parameter(0.5, "a rate", above=0, below=1)
    steps: tuple[int, ...] = parameter((1, 2), "steps", min=1)


WORK = """\
from pathlib import Path
for folder in ("figures", "tables"):
    (Path(run_dir) / folder).mkdir(parents=True, exist_ok=True)
    (Path(run_dir) / folder / "curve.svg").write_text(str(n))
(Path(run_dir) / "figures" / "curve.png").write_text(str(n))
print("n is", n, "and steps are", steps)"""


def parameters_cell():
    """The defaults of Tiny as a parameters cell holds them."""
    values = jobs.Job(Path("tiny.ipynb"), "digits", Tiny()).parameters
    lines = [f"{name}: {type(value).__name__} = {value!r}  # help" for name, value in values.items()]
    return new_code_cell("\n".join(lines), metadata={"tags": ["parameters"]})


def write_notebook(folder, *sources):
    """tiny.ipynb with these cells after its parameters."""
    cells = [new_markdown_cell("# Tiny"), parameters_cell(), *map(new_code_cell, sources)]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "p"}})
    nbformat.write(notebook, folder / "tiny.ipynb")


class Kit:
    """A folder with one notebook and one profile; `kit("-p", "n", "5")` runs it and returns the exit code."""

    def __init__(self, folder, *sources):
        self.folder, self.runs = folder, folder / "run"
        write_notebook(folder, *sources)
        (folder / "profile.yaml").write_text(f"common: {{run_dir: {self.runs}}}\ntiny: {{n: 50}}\n")

    def command(self, *words):
        return [str(self.folder / "tiny.ipynb"), "--profile", str(self.folder / "profile.yaml"), *words]

    def __call__(self, *words):
        return run.main(self.command(*words))

    def left(self):
        """The names of what lies in the run's folder, folders aside."""
        return sorted(path.name for path in self.runs.glob("*") if path.is_file())

    def manifest(self):
        return json.loads((self.runs / "tiny.json").read_text())

    def notebook(self, name="tiny.ipynb"):
        return nbformat.read(self.runs / name, as_version=4)


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NOTEBOOKS, "tiny", Tiny)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A kit whose notebook has run once. The tests that share it only look."""
    kit = Kit(tmp_path_factory.mktemp("finished"), WORK)
    assert kit("-p", "rate", "1e-3") == 0
    return kit


# ---- refused before anything starts ----------------------------------------------------------------------------


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


# ---- a run that ends well --------------------------------------------------------------------------------------


def test_a_finished_run_leaves_the_notebook_and_its_manifest_and_nothing_unfinished(finished):
    assert finished.left() == ["tiny.ipynb", "tiny.json"]


def test_every_cell_of_a_finished_notebook_has_run_with_the_parameters_asked_for(finished):
    code = [cell for cell in finished.notebook().cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3]
    assert code[-1].outputs[0].text == "n is 50 and steps are [1, 2]\n"


def test_only_what_differs_from_the_notebook_s_own_cell_is_injected(finished):
    injected = [cell for cell in finished.notebook().cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert [line.split(" =")[0] for line in injected[0].source.splitlines()[1:]] == ["run_dir", "n", "rate"]


def test_a_finished_notebook_holds_no_path_of_this_machine(finished):
    paths = finished.notebook().metadata.papermill
    assert (paths.input_path, paths.output_path) == ("tiny.ipynb", "tiny.ipynb")


def test_the_manifest_says_what_the_run_was_made_with(finished):
    manifest = finished.manifest()
    assert manifest["parameters"] == {**jobs.Job(Path("x"), "", Tiny()).parameters, "run_dir": str(finished.runs),
                                      "n": 50, "rate": 0.001}  # fmt: skip
    assert manifest["environment"] == environment.describe("cpu")
    assert (manifest["notebook"], len(manifest["inputs"]), manifest["seconds"] > 0) == ("tiny.ipynb", 64, True)
    assert manifest["outputs"] == ["figures/curve.png", "figures/curve.svg", "tables/curve.svg"]


def test_the_same_run_is_not_repeated_and_says_where_everything_is(finished, capsys, monkeypatch):
    monkeypatch.chdir(finished.folder)
    before = hashlib.sha256((finished.runs / "tiny.ipynb").read_bytes()).hexdigest()
    assert finished("-p", "rate", "0.001") == 0
    assert hashlib.sha256((finished.runs / "tiny.ipynb").read_bytes()).hexdigest() == before
    assert capsys.readouterr().out.splitlines() == [
        "tiny: up to date",
        "notebook  run/tiny.ipynb",
        "figures   run/figures/curve{.png,.svg}",
        "tables    run/tables/curve.svg",
    ]


def job_of(kit, *settings):
    return jobs.plan_one(kit.folder / "tiny.ipynb", str(kit.folder / "profile.yaml"), settings)


def test_another_parameter_makes_a_run_out_of_date(finished):
    assert jobs.up_to_date(job_of(finished, ("rate", "0.001")))
    assert not jobs.up_to_date(job_of(finished, ("rate", "0.002")))


@pytest.mark.parametrize("name", ["tiny.ipynb", "tiny.json", "figures/curve.png"])
def test_a_file_that_was_removed_makes_a_run_out_of_date(name, finished):
    path = finished.runs / name
    path.rename(path.with_suffix(".aside"))
    try:
        assert not jobs.up_to_date(job_of(finished, ("rate", "0.001")))
    finally:
        path.with_suffix(".aside").rename(path)


def test_the_inputs_are_the_sources_of_notebook_and_library_but_no_outputs(tmp_path, monkeypatch):
    kit = Kit(tmp_path, WORK)
    library = tmp_path / "lib" / "deep"
    library.mkdir(parents=True)
    monkeypatch.setattr(jobs, "PROJECT_ROOT", tmp_path)
    hashes = [jobs.inputs_hash(job_of(kit))]
    notebook = nbformat.read(tmp_path / "tiny.ipynb", as_version=4)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="1")]
    nbformat.write(notebook, tmp_path / "tiny.ipynb")
    assert jobs.inputs_hash(job_of(kit)) == hashes[0]
    for change in ((library / "a.py", "1"), (library / "a.py", "2"), (library / "b.py", "")):
        change[0].write_text(change[1])
        hashes.append(jobs.inputs_hash(job_of(kit)))
    write_notebook(tmp_path, WORK + "  # a word")
    hashes.append(jobs.inputs_hash(job_of(kit)))
    assert len(set(hashes)) == 5


# ---- a run that fails ------------------------------------------------------------------------------------------


def test_a_failing_run_keeps_its_copy_and_leaves_no_earlier_notebook_looking_current(tmp_path, capsys):
    kit = Kit(tmp_path, WORK, "assert n == 50, f'n is {n}'\n'done'")
    assert kit() == 0
    assert kit("-p", "n", "60") == 1
    assert kit.left() == ["tiny.failed.ipynb", "tiny.previous.ipynb", "tiny.previous.json"]
    said = capsys.readouterr().err
    assert "tiny: failed in cell 5/5: AssertionError: n is 60\n    assert n == 50" in said
    assert "Traceback" not in said and "tiny.failed.ipynb" in said
    assert "n is 60" in str(kit.notebook("tiny.failed.ipynb").cells)
    assert kit() == 0  # the figures were overwritten by n = 60: the first run has to be repeated
    assert kit.left() == ["tiny.ipynb", "tiny.json"]
    assert (kit.runs / "figures" / "curve.png").read_text() == "50"


def test_leaving_a_notebook_with_sys_exit_0_is_a_failure(tmp_path, capsys):
    kit = Kit(tmp_path, "import sys; sys.exit(0)", "print('never')")
    assert kit() == 1
    assert kit.left() == ["tiny.failed.ipynb"]
    assert "failed in cell 4/5: SystemExit: " in capsys.readouterr().err


def test_a_cell_that_takes_too_long_is_a_failure(tmp_path, capsys):
    kit = Kit(tmp_path, "import time; time.sleep(60)", "print('never')")
    assert kit("--timeout", "1") == 1
    assert kit.left() == ["tiny.failed.ipynb"]
    assert "failed in cell 4/5: CellTimeoutError" in capsys.readouterr().err


def test_a_kernel_that_dies_is_a_failure(tmp_path, capsys):
    kit = Kit(tmp_path, "import os; os._exit(1)", "print('never')")
    assert kit() == 1
    assert kit.left() == ["tiny.failed.ipynb"]
    assert "failed in cell 4/5: DeadKernelError" in capsys.readouterr().err


KILLED = """\
import sys
from lib import run
from lib.config import NOTEBOOKS
sys.path.insert(0, "tests")
from test_run import Tiny
NOTEBOOKS["tiny"] = Tiny
sys.exit(run.main())"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_killed_run_leaves_nothing_that_looks_finished(tmp_path):
    kit = Kit(tmp_path, WORK, "import time; time.sleep(60)")
    command = [sys.executable, "-c", KILLED, *kit.command()]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (kit.runs / "figures" / "curve.png").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert kit.left() == ["tiny.partial.ipynb"]


# ---- the kernel ------------------------------------------------------------------------------------------------


def test_the_kernel_is_this_interpreter_beside_the_notebook_and_logs_progress(tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("KIT_PROGRESS")
    source = """\
import os, sys
print(sys.executable, os.getcwd(), os.environ["KIT_PROGRESS"], sep="\\n")
print("certify: 10 %", file=sys.stderr)"""
    kit = Kit(tmp_path, source)
    assert kit() == 0
    monkeypatch.delenv("KIT_PROGRESS")
    lines = next(out.text for out in kit.notebook().cells[-1].outputs if out.name == "stdout").splitlines()
    assert [Path(lines[0]), Path(lines[1]), lines[2]] == [Path(sys.executable), tmp_path, "log"]
    shown = capfd.readouterr()
    assert (shown.err, "tiny: cell 1/4" in shown.out) == ("certify: 10 %\n", True)


def test_every_parameter_of_the_tiny_notebook_is_declared():
    assert list(jobs.cell_parameters(new_notebook(cells=[parameters_cell()]))) == field_names(Tiny)
