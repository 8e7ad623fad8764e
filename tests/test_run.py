"""The runner, on a notebook of a few cells: what it leaves behind, what it repeats, how it fails."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from processes import start, wait_for
from tiny_notebook import WORK, Kit, Tiny

from lib.machine import provenance
from lib.runner import jobs

pytestmark = pytest.mark.usefixtures("tiny_is_known")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_is_known):
    """A kit whose notebook has run once. The tests that share it only look."""
    kit = Kit(tmp_path_factory.mktemp("finished"), WORK)
    assert kit("-p", "rate", "1e-3") == 0
    return kit


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
    assert manifest["environment"] == provenance.describe("cpu")
    assert manifest["notebook"] == "tiny.ipynb" and manifest["seconds"] > 0
    assert manifest["outputs"] == ["figures/curve.png", "figures/curve.svg", "tables/curve.svg"]


def test_the_same_run_is_not_repeated_and_says_where_everything_is(finished, capsys, monkeypatch):
    monkeypatch.chdir(finished.folder)
    before = (finished.runs / "tiny.ipynb").read_bytes()
    (finished.runs / "records").mkdir()
    for name in ("a.tsv", "a.json", "b.tsv", "b.json"):
        (finished.runs / "records" / name).touch()
    assert finished("-p", "rate", "0.001") == 0
    assert (finished.runs / "tiny.ipynb").read_bytes() == before
    assert capsys.readouterr().out.splitlines() == [
        "tiny: up to date",
        "notebook  run/tiny.ipynb",
        "figures   run/figures/curve{.png,.svg}",
        "tables    run/tables/curve.svg",
        "records   run/records: 2 logs",
    ]


def test_another_parameter_makes_a_run_out_of_date(finished):
    assert jobs.up_to_date(finished.job(("rate", "0.001")))
    assert not jobs.up_to_date(finished.job(("rate", "0.002")))


@pytest.mark.parametrize("name", ["tiny.ipynb", "tiny.json", "figures/curve.png"])
def test_a_file_that_was_removed_makes_a_run_out_of_date(name, finished):
    path = finished.runs / name
    path.rename(path.with_suffix(".aside"))
    try:
        assert not jobs.up_to_date(finished.job(("rate", "0.001")))
    finally:
        path.with_suffix(".aside").rename(path)


@pytest.mark.parametrize(
    "text", ["{}", "[]", "3", "", "{", '{"inputs": 1}', '{"outputs": []}', '{"inputs": 1, "outputs": 2}']
)
def test_a_manifest_that_says_too_little_makes_a_run_out_of_date(text, finished):
    path = finished.runs / "tiny.json"
    whole = path.read_text()
    path.write_text(text)
    try:
        assert not jobs.up_to_date(finished.job(("rate", "0.001")))
    finally:
        path.write_text(whole)


# ---- a run that fails ------------------------------------------------------------------------------------------


def test_a_failing_run_keeps_its_copy_and_leaves_no_earlier_notebook_looking_current(tmp_path, capsys):
    kit = Kit(tmp_path, WORK, "assert n == 50, f'n is {n}'\n'done'")
    assert kit() == 0
    assert kit("-p", "n", "60") == 1
    assert kit.left() == ["tiny.failed.ipynb", "tiny.previous.ipynb", "tiny.previous.json"]
    said = capsys.readouterr().err
    assert "tiny: failed in cell 5/5: AssertionError: n is 60\n  > assert n == 50" in said
    assert "Traceback" not in said and "tiny.failed.ipynb" in said
    assert "n is 60" in str(kit.notebook("tiny.failed.ipynb").cells)
    assert kit() == 0  # the figures were overwritten by n = 60: the first run has to be repeated
    assert kit.left() == ["tiny.ipynb", "tiny.json"]
    assert (kit.runs / "figures" / "curve.png").read_text() == "50"


def test_a_failing_cell_is_reported_with_the_line_that_raised_however_far_down_it_stands(tmp_path, capsys):
    kit = Kit(
        tmp_path, "def half(x):\n    return x / 0", *["\n".join([*"abcdefghi", "half(n)"]).replace("\n", " = 1\n")]
    )
    assert kit() == 1
    said = capsys.readouterr().err
    assert "failed in cell 5/5: ZeroDivisionError: division by zero\n    a = 1\n    b = 1\n" in said
    assert "    h = 1\n    ...\n  > half(n)\n" in said and "i = 1" not in said and "return" not in said


def test_a_cell_that_is_no_python_is_reported_with_its_line(tmp_path, capsys):
    assert Kit(tmp_path, "a = 1\nb = (")() == 1
    assert "SyntaxError: " in (said := capsys.readouterr().err) and "    a = 1\n  > b = (\n" in said


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
from tiny_notebook import Tiny
NOTEBOOKS["tiny"] = Tiny
sys.exit(run.main())"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_killed_run_leaves_nothing_that_looks_finished(tmp_path):
    kit = Kit(tmp_path, WORK, "import time; time.sleep(60)")
    command = [sys.executable, "-c", KILLED, *kit.command()]
    process = start(command, cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL)
    wait_for((kit.runs / "figures" / "curve.png").exists, process)
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


def test_a_run_that_another_process_is_at_is_refused_and_left_alone(tmp_path, capsys):
    kit = Kit(tmp_path, WORK)
    kit.runs.mkdir(parents=True)
    with FileLock(kit.runs / ".tiny.lock"):
        assert kit() == 1
    assert "tiny: another process is running it in" in capsys.readouterr().err
    assert kit.left() == []
    assert kit() == 0
