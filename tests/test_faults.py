"""What can go wrong outside the program, done for real: kills, a full disk, damaged files, two at once, Ctrl-C.

Each time: what is on the disk stays valid, the message names the file, and the next run ends with the result that an
undisturbed one gives. A killed record and a killed certification are in test_records.py and test_certification.py,
damaged records, and two processes that write one, in test_records.py.
"""

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from jupyter_client.manager import start_new_kernel
from test_certification import IDS, certify, without_time
from test_records import IDS as RECORD_IDS
from test_records import PARAMETERS, finished, row, unfinished
from test_training import RECIPE, Interrupted, fit, interrupt_after, weights
from tiny_notebook import WORK, Kit

from lib.machine.files import atomic_write, partial_path
from lib.records import Record, read_log
from lib.records.row import read_rows

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals and limits")

# `limit`: the size in bytes that no file of the process can exceed; 0 is none.
PREAMBLE = """
import resource, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
"""


def start(script: str, folder: Path, limit: int = 0) -> subprocess.Popen:
    script = PREAMBLE.format(tests=str(Path(__file__).parent)) + script
    command = [sys.executable, "-c", script, str(folder), str(limit)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.01)


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


# --- kill -9 ---------------------------------------------------------------------------------------

SLOW_TRAINING = """
import test_training as t
learn = t.gaussian(t.RECIPE.sigma)
def slow(*arguments):
    time.sleep(0.05)
    return learn(*arguments)
t.fit(folder, objective=slow)
"""


def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    process = start(SLOW_TRAINING, tmp_path / "killed")
    resume = tmp_path / "killed" / f"{RECIPE.hash}.resume"
    wait_for(resume.exists, process)
    time.sleep(0.1)  # into the next epoch
    kill(process)
    assert resume.exists() and not resume.with_suffix(".safetensors").exists()
    assert torch.equal(weights(fit(tmp_path / "killed")), weights(fit(tmp_path / "whole")))


KILLED_RUN = """
from tiny_notebook import Tiny
from lib import run
from lib.config import NOTEBOOKS
NOTEBOOKS["tiny"] = Tiny
run.main([str(folder / "tiny.ipynb"), "--profile", str(folder / "profile.yaml")])
"""


def test_a_killed_notebook_run_never_looks_finished_and_the_next_one_completes(tmp_path, tiny_is_known):
    kit = Kit(tmp_path, WORK, "import time\nif not Path('again').exists():\n    time.sleep(60)")
    process = start(KILLED_RUN, tmp_path)
    wait_for((kit.runs / "figures" / "curve.png").exists, process)
    kill(process)
    assert kit.left() == ["tiny.partial.ipynb"]
    (tmp_path / "again").touch()
    assert kit() == 0
    assert kit.left() == ["tiny.ipynb", "tiny.json"]


# --- a full disk -----------------------------------------------------------------------------------
# RLIMIT_FSIZE stands for it: the system writes what fits, then refuses, as it does when no block is free.

FULL = f"[Errno {errno.EFBIG}]"


@pytest.mark.parametrize("limit", [250, 333, 600])
def test_a_record_on_a_full_disk_keeps_its_rows_and_is_resumed_to_the_same_bytes(limit, tmp_path):
    whole, path = finished(tmp_path / "whole.tsv").read_bytes(), tmp_path / "log.tsv"
    said = start("import test_records as t; t.finished(folder / 'log.tsv')", tmp_path, limit).communicate()[1]
    assert FULL in said and said.endswith(f"'{partial_path(path)}'\n")
    assert partial_path(path).read_bytes() == whole[:limit] and not path.exists()
    with Record(path, PARAMETERS, RECORD_IDS) as record:
        assert len(record.done) == whole[:limit].count(b"\n") - 1
        record.append([row(idx) for idx in record.todo])
        record.finish({"device": "cpu"})
    assert path.read_bytes() == whole


APPEND_TWICE = """
import test_records as t
with t.Record(folder / "log.tsv", t.PARAMETERS, t.IDS) as record:
    for attempt in range(2):
        try:
            record.append([t.row(idx) for idx in record.todo])
        except (OSError, ValueError) as error:
            print(error)
"""


def test_nothing_is_appended_behind_half_a_line(tmp_path):
    said = start(APPEND_TWICE, tmp_path, 333).communicate()[0].splitlines()
    assert FULL in said[0] and "complete or closed" in said[1]


def test_replacing_a_file_on_a_full_disk_keeps_the_old_one(tmp_path):
    atomic_write(tmp_path / "file", "old")
    script = "from lib.machine.files import atomic_write; atomic_write(folder / 'file', 'n' * 1000)"
    said = start(script, tmp_path, 500).communicate()[1]
    assert FULL in said and said.endswith(f"'{tmp_path / 'file'}'\n")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"file": "old"}


def test_a_training_on_a_full_disk_ends_with_the_same_weights_once_there_is_room(tmp_path):
    said = start("import test_training as t; t.fit(folder / 'full')", tmp_path, 2000).communicate()[1]
    assert FULL in said and f"{RECIPE.hash}.resume'" in said
    assert not list(tmp_path.glob("full/[!.]*"))
    assert torch.equal(weights(fit(tmp_path / "full")), weights(fit(tmp_path / "whole")))


# --- damaged files ---------------------------------------------------------------------------------


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def one_bit_flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def emptied(data: bytes) -> bytes:
    return b""


DAMAGE = [truncated, one_bit_flipped, emptied]


def weights_file(folder):
    fit(folder)
    return folder / f"{RECIPE.hash}.safetensors"


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights_are_refused_by_name_and_not_trained_over(damage, tmp_path):
    path = weights_file(tmp_path)
    path.write_bytes(damaged := damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path} cannot be used: its SHA-256 .*delete it to train again"):
        fit(tmp_path)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("damage", [truncated, emptied])
def test_weights_that_came_without_a_checksum_are_refused_where_they_cannot_be_read(damage, tmp_path):
    path = weights_file(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=f"{path} cannot be used: "):
        fit(tmp_path)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_training_state_is_refused_by_name(damage, tmp_path):
    with pytest.raises(Interrupted):
        fit(tmp_path, objective=interrupt_after(4))
    path = tmp_path / f"{RECIPE.hash}.resume"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path} is damaged: .*Delete it to train from the first epoch"):
        fit(tmp_path)
    path.unlink()
    assert torch.equal(weights(fit(tmp_path)), weights(fit(tmp_path / "whole")))


@pytest.mark.parametrize("damage", [truncated, emptied])
def test_a_damaged_manifest_of_a_record_is_refused_by_name(damage, tmp_path):
    for manifest, make in (("a.json.partial", lambda p: unfinished(p, 3)), ("b.json", finished)):
        path = tmp_path / f"{manifest[0]}.tsv"
        make(path)
        (tmp_path / manifest).write_bytes(damage((tmp_path / manifest).read_bytes()))
        with pytest.raises(ValueError, match=f"{tmp_path / manifest} is damaged"):
            Record(path, PARAMETERS, RECORD_IDS)


# --- two at once -----------------------------------------------------------------------------------


def test_a_second_process_waits_for_the_training_of_the_first_and_loads_its_weights(tmp_path):
    process = start(SLOW_TRAINING, tmp_path)
    wait_for((tmp_path / f"{RECIPE.hash}.resume").exists, process)
    with pytest.warns(UserWarning, match=f"{RECIPE.hash}.safetensors is being trained by another process"):
        second = fit(tmp_path, objective=lambda *_: pytest.fail("trained a second time"))
    assert process.wait() == 0
    assert torch.equal(weights(second), weights(fit(tmp_path / "whole")))
    assert {file.suffix for file in tmp_path.glob("*.*")} == {".safetensors", ".json"}


# --- Ctrl-C in a notebook --------------------------------------------------------------------------

INTERRUPTED = """
import sys, time
sys.path[:0] = [{tests!r}, {root!r}]
import test_certification as t
from pathlib import Path
group, seen = t.certification.certify_group, []
def slow(*arguments, **how):
    seen.append(1)
    time.sleep(60 * (len(seen) > 1))
    return group(*arguments, **how)
t.certification.certify_group = slow
t.certify(Path({folder!r}))
"""
AGAIN = """
t.certification.certify_group = group
t.certify(Path({folder!r}))
"""


def test_an_interrupted_cell_leaves_a_valid_record_that_the_same_kernel_completes(tmp_path):
    values = {"tests": str(ROOT / "tests"), "root": str(ROOT), "folder": str(tmp_path / "cell")}
    manager, client = start_new_kernel()
    try:
        client.execute(INTERRUPTED.format(**values))
        deadline = time.monotonic() + 60
        while not any(file.stat().st_size > 200 for file in tmp_path.glob("cell/*.tsv.partial")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        manager.interrupt_kernel()
        assert client.get_shell_msg(timeout=60)["content"]["ename"] == "KeyboardInterrupt"
        rows, _ = read_rows(next(tmp_path.glob("cell/*.tsv.partial")))
        assert 0 < len(rows) < len(IDS) and not list(tmp_path.glob("cell/*.tsv"))
        client.execute(AGAIN.format(**values))
        assert client.get_shell_msg(timeout=60)["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    log = read_log(next(tmp_path.glob("cell/*.tsv")))
    pd.testing.assert_frame_equal(without_time(log), without_time(certify(tmp_path / "whole")))
