"""Sweeps of a notebook of a few cells: what runs, what is skipped, what a failure leaves, what they sum up to."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from processes import PATIENCE, start, wait_for
from tiny_notebook import Kit

from lib import sweep
from lib.config import NOTEBOOKS
from lib.runner import grid as grid_module
from lib.runner import report
from lib.runner.jobs import up_to_date

pytestmark = pytest.mark.usefixtures("tiny_is_known")

# A record whose radii are the parameter `rate`; at rate 0.2 the notebook fails once it is written.
RECORD = """\
from pathlib import Path
from lib.records import COLUMNS
facts = dict(label=0, radius=rate, time=0.1, n0=10, n=n, n_a=n, n_b=0, sigma=0.5, alpha=alpha, seed=seed)
facts |= dict(noise="gaussian", bound="clopper-pearson", image="0" * 16, check="0" * 8)
rows = [facts | dict(idx=i, predict=i % 2, selected=i % 2, correct=1 - i % 2) for i in range(4)]
lines = [COLUMNS, *([str(row[name]) for name in COLUMNS] for row in rows)]
path = Path(run_dir, "records", "log-123.tsv")
path.parent.mkdir(parents=True)
path.write_text("".join("\\t".join(line) + "\\n" for line in lines))"""
FAIL = "assert rate != 0.2, f'rate is {rate}'"


def write_grid(kit, folder=None, **changes):
    sections = {"profile": str(kit.folder / "profile.yaml"), "notebooks": [str(kit.folder / "tiny.ipynb")],
                "parameters": {"n": 60}, "grid": {"rate": [0.1, 0.6]}} | changes  # fmt: skip
    path = (folder or kit.folder) / "rates.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in sections.items() if value is not None}))
    return str(path)


def run_dirs(kit):
    return sorted(kit.folder.glob("runs/sweeps/rates/*/tiny.ipynb"))


@pytest.fixture
def kit(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    return Kit(tmp_path, RECORD, FAIL)


@pytest.fixture(scope="module")
def swept(tmp_path_factory, tiny_is_known):
    """A kit whose sweep of two points has run once on two workers: the first point fails."""
    pytest.importorskip("distributed", reason="workers need: pip install -e '.[cluster]'")
    with pytest.MonkeyPatch.context() as patch:
        kit = Kit(tmp_path_factory.mktemp("swept"), RECORD, FAIL)
        patch.setenv("KIT_ROOT", str(kit.folder))
        grid = write_grid(kit, grid={"rate": [0.2, 0.6], "seed": [0]})
        done = subprocess.run(
            [sys.executable, "-c", SWEEP, grid, "--workers", "2"], cwd=Path(__file__).parents[1],
            capture_output=True, text=True,
        )  # fmt: skip
        yield kit, grid, done


SWEEP = """\
import sys
sys.path.insert(0, "tests")
from tiny_notebook import Tiny
from lib import sweep
from lib.config import NOTEBOOKS
if __name__ == "__main__":
    NOTEBOOKS["tiny"] = Tiny
    sys.exit(sweep.main())"""


def test_a_failure_does_not_stop_the_other_points_and_is_listed_at_the_end_with_its_cell(swept):
    kit, _, done = swept
    assert done.returncode == 1 and len(run_dirs(kit)) == 1
    last = done.stderr[done.stderr.index("lib.sweep: ") :].splitlines()
    assert last[0] == "lib.sweep: rate = 0.2, seed = 0: tiny: failed in cell 5/5: AssertionError: rate is 0.2"
    assert "tiny.failed.ipynb" in last[-1]
    assert done.stdout.count(": done") == done.stdout.count(": failed") == 1


def test_the_table_has_a_row_for_each_record_of_the_complete_points(swept):
    kit, *_ = swept
    table = pd.read_csv(kit.folder / "runs/sweeps/rates/all.csv", dtype={"run": str})  # 5414e484 would be infinity
    facts = {"notebook": "tiny", "run": run_dirs(kit)[0].parent.name, "record": "log", "rows": 4, "samples": 60}
    read = {"rate": 0.6, "seed": 0, "0": 0.5, "0.25": 0.5, "0.5": 0.5, "ACR": pytest.approx(0.3)}
    assert table.to_dict("records") == [facts | read]


def test_the_figure_is_saved_in_every_format(swept):
    kit, *_ = swept
    assert len(list(kit.folder.glob("runs/sweeps/rates/certified_accuracy.*"))) == 3


def told(*varied):
    """What the figure of a sweep with these points says: its title, and its legends without their order."""
    log = pd.DataFrame({"predict": [1, 1], "label": 1, "correct": True, "radius": [0.2, 0.4]})
    points = [grid_module.Point(SimpleNamespace(name="tiny"), values) for values in varied]
    figure = report.figure([(point, record, log) for point in points for record in ("a", "b")])
    legends = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    assert all(legend == legends[0] for legend in legends) and len(legends) == 2
    return figure.get_suptitle(), legends[0]


def test_the_legend_leaves_out_what_does_not_vary_and_the_title_says_it():
    one = {"rate": 0.1, "sigmas": [0.5], "seed": 0}
    assert told(one, one | {"rate": 0.6}) == ("varied: rate; sigmas = [0.5]; seed = 0", ["rate = 0.1", "rate = 0.6"])
    title, legend = told(one, one | {"rate": 0.6, "seed": 1})
    assert title == "varied: rate, seed; sigmas = [0.5]" and legend == ["rate = 0.1, seed = 0", "rate = 0.6, seed = 1"]
    assert told({}) == ("varied: nothing", ["all points"])


def test_complete_points_are_skipped_and_failed_ones_run_again(swept, monkeypatch):
    kit, grid, _ = swept
    monkeypatch.setenv("KIT_ROOT", str(kit.folder))
    todo = [point.varied for point in grid_module.Grid.read(grid).points() if not up_to_date(point.job)]
    assert todo == [{"rate": 0.2, "seed": 0}]


def test_a_sweep_of_complete_points_starts_nothing_and_ends_with_0(swept, tmp_path, monkeypatch, capsys):
    kit, *_ = swept
    monkeypatch.setenv("KIT_ROOT", str(kit.folder))
    monkeypatch.setattr(grid_module, "run", lambda *_: pytest.fail("ran again"))
    assert sweep.main([write_grid(kit, tmp_path, grid={"rate": [0.6, 0.6], "seed": [0]})]) == 0
    assert "1 points, 1 complete" in capsys.readouterr().out


def test_every_point_has_its_own_folder_and_all_share_their_weights(kit, monkeypatch):
    monkeypatch.setattr(grid_module, "run", lambda job, _: (job.folder / "weights" / job.folder.name).touch())
    points = grid_module.Grid.read(write_grid(kit)).points()
    assert [failure for _, failure in grid_module.outcomes(points, 60)] == ["", ""]
    folders = [point.job.folder for point in points]
    assert len(set(folders)) == 2
    assert {file.name for file in (folders[0] / "weights").iterdir()} == {folder.name for folder in folders}


def test_another_notebook_parameter_or_library_is_another_folder(kit, monkeypatch, tmp_path):
    def folders(**changes):
        return {point.job.config.run_dir for point in grid_module.Grid.read(write_grid(kit, **changes)).points()}

    before = folders()
    assert folders() == before and len(before) == 2
    assert not before & folders(parameters={"n": 61})
    Kit(tmp_path, RECORD, "'another cell'")
    assert not before & folders()


WRONG = {
    "grid: rate = 0.1: a list": {"grid": {"rate": 0.1}},
    "a list expected, of what is not set": {"parameters": {"rate": 0.3}},
    "run_dir is not for a grid": {"parameters": {"run_dir": "x"}},
    "unknown parameter: 'ratte'; did you mean 'rate'": {"grid": {"ratte": [0.1]}},
    "rate = 1.5: must be less than 1": {"grid": {"rate": [0.1, 1.5]}},
    "rate = '1e-3'": {"grid": {"rate": ["1e-3"]}},
    "unknown section": {"gird": {}},
    "the first two are needed": {"notebooks": None},
    "no file": {"notebooks": ["teeny"]},
    "notebooks = 'tiny': list expected": {"notebooks": "tiny"},
}


@pytest.mark.parametrize(("message", "changes"), WRONG.items(), ids=WRONG)
def test_a_grid_that_is_wrong_anywhere_starts_nothing(message, changes, kit, capsys):
    assert sweep.main([write_grid(kit, **changes)]) == 2
    assert message in capsys.readouterr().err and not (kit.folder / "runs").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [("grid: {rate: [0.1]}", "'grid' is there twice, in lines 4 and 6"), ("  rate: [0.1]", "'rate' is there twice")],
)
def test_a_grid_that_says_a_thing_twice_is_refused_with_the_lines(text, message, kit, capsys):
    path = Path(write_grid(kit))
    names = f"profile: {kit.folder / 'profile.yaml'}\nnotebooks: [{kit.folder / 'tiny.ipynb'}]"
    path.write_text(f"{names}\nparameters: {{}}\ngrid:\n  rate: [0.6]\n{text}\n")
    assert sweep.main([str(path)]) == 2
    assert message in capsys.readouterr().err and not (kit.folder / "runs").exists()


def test_a_sweep_into_a_file_is_refused(kit, capsys):
    (kit.folder / "runs").touch()
    assert sweep.main([write_grid(kit)]) == 2
    assert f"{kit.folder / 'runs'} is no folder" in capsys.readouterr().err


def test_a_grid_that_is_not_there_is_refused(capsys):
    assert sweep.main(["nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX signals")
def test_ctrl_c_stops_the_whole_sweep_and_not_only_its_point(kit):
    Kit(kit.folder, "from pathlib import Path\nPath('started').touch()\nimport time\ntime.sleep(600)")
    command = [sys.executable, "-c", SWEEP, write_grid(kit)]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    try:
        process = start(command, cwd=Path(__file__).parents[1], start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for((kit.folder / "started").exists, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == 130
    assert len(list(kit.folder.glob("runs/sweeps/rates/*/tiny.failed.ipynb"))) == 1


def test_the_example_grid_fits_its_notebook():
    grid = grid_module.Grid.read(Path(__file__).parents[1] / "sweeps" / "example.yaml")
    assert len(grid.points()) > 1 and set(grid.notebooks) <= NOTEBOOKS.keys()


def test_a_device_is_looked_for_where_the_points_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    path = tmp_path / "device.yaml"
    path.write_text(
        "profile: digits\nnotebooks: [05_other_certificates]\nparameters: {device: 'cuda:99'}\ngrid: {seed: [0]}"
    )
    monkeypatch.setattr(sweep, "outcomes", lambda *_: iter(()))
    assert sweep.main([str(path)]) == 2
    assert "device = 'cuda:99': there is no such device here" in capsys.readouterr().err
    assert sweep.main([str(path), "--scheduler", "tcp://10.0.0.1:8786"]) == 0
