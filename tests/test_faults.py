"""What can go wrong outside the program, done for real: kills, a full disk, damaged files, Ctrl-C.

Each time: what is on the disk stays valid, the message names the file, and the next run ends with the result that an
undisturbed one gives. What concerns trainings is in test_training_faults.py; a killed record and a killed certification
are in test_records.py and test_certification.py, damaged records, and two processes that write one, in test_records.py.
"""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import processes
import pytest
from jupyter_client.manager import start_new_kernel
from processes import PATIENCE, wait_for
from test_certification import IDS, certify, without_time
from test_records import finished, opened, row, unfinished
from tiny_notebook import WORK, Kit

from lib.machine.files import atomic_write, partial_path
from lib.records import read_log

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
    return processes.start(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


# --- kill -9 ---------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("limit", [600, 777, 1300])
def test_a_record_on_a_full_disk_keeps_its_rows_and_is_resumed_to_the_same_bytes(limit, tmp_path):
    whole, path = finished(tmp_path / "whole.tsv").read_bytes(), tmp_path / "log.tsv"
    said = start("import test_records as t; t.finished(folder / 'log.tsv')", tmp_path, limit).communicate()[1]
    assert FULL in said and said.endswith(f"'{partial_path(path)}'\n")
    assert partial_path(path).read_bytes() == whole[:limit] and not path.exists()
    with opened(path) as record:
        assert len(record.done) == whole[:limit].count(b"\n") - 1
        record.append([row(idx) for idx in record.todo])
        record.finish({"device": "cpu"})
    assert path.read_bytes() == whole


APPEND_TWICE = """
import test_records as t
with t.opened(folder / "log.tsv") as record:
    for attempt in range(2):
        try:
            record.append([t.row(idx) for idx in record.todo])
        except (OSError, ValueError) as error:
            print(error)
"""


def test_nothing_is_appended_behind_half_a_line(tmp_path):
    said = start(APPEND_TWICE, tmp_path, 777).communicate()[0].splitlines()
    assert FULL in said[0] and "complete or closed" in said[1]


def test_replacing_a_file_on_a_full_disk_keeps_the_old_one(tmp_path):
    atomic_write(tmp_path / "file", "old")
    script = "from lib.machine.files import atomic_write; atomic_write(folder / 'file', 'n' * 1000)"
    said = start(script, tmp_path, 500).communicate()[1]
    assert FULL in said and said.endswith(f"'{tmp_path / 'file'}'\n")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"file": "old"}


# --- damaged files ---------------------------------------------------------------------------------


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def one_bit_flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def emptied(data: bytes) -> bytes:
    return b""


DAMAGE = [truncated, one_bit_flipped, emptied]


@pytest.mark.parametrize("damage", [truncated, emptied])
def test_a_damaged_manifest_of_a_record_is_refused_by_name(damage, tmp_path):
    for manifest, make in (("a.json.partial", lambda p: unfinished(p, 3)), ("b.json", finished)):
        path = tmp_path / f"{manifest[0]}.tsv"
        make(path)
        (tmp_path / manifest).write_bytes(damage((tmp_path / manifest).read_bytes()))
        with pytest.raises(ValueError, match=f"{tmp_path / manifest} is damaged"):
            opened(path)


# --- Ctrl-C in a notebook --------------------------------------------------------------------------

# The network waits for the file `go` once a row of the record is on the disk.
INTERRUPTED = """
import sys, time
sys.path[:0] = [{tests!r}, {root!r}]
import test_certification as t
from pathlib import Path
folder = Path({folder!r})
class Waits(type(t.hyperplane())):
    def forward(self, images):
        if any(file.read_bytes().count(b"\\n") > 1 for file in folder.glob("cell/*.tsv.partial")):
            (folder / "reached").touch()
            while not (folder / "go").exists():
                time.sleep(0.02)
        return super().forward(images)
plane = t.hyperplane()
base = Waits(plane.w, plane.b).eval()
t.certify(folder / "cell", base=base)
"""
AGAIN = """
(folder / "go").touch()
t.certify(folder / "cell", base=base)
"""


def test_an_interrupted_cell_leaves_a_valid_record_that_the_same_kernel_completes(tmp_path):
    values = {"tests": str(ROOT / "tests"), "root": str(ROOT), "folder": str(tmp_path)}
    manager, client = start_new_kernel(startup_timeout=PATIENCE)
    try:
        # stop_on_error would have the kernel refuse, for a moment, whatever comes after the interrupt
        client.execute(INTERRUPTED.format(**values), stop_on_error=False)
        wait_for((tmp_path / "reached").exists)
        manager.interrupt_kernel()
        assert client.get_shell_msg(timeout=PATIENCE)["content"]["ename"] == "KeyboardInterrupt"
        rows = next(tmp_path.glob("cell/*.tsv.partial")).read_text().splitlines()[1:]
        assert 0 < len(rows) < len(IDS) and not list(tmp_path.glob("cell/*.tsv"))
        client.execute(AGAIN)
        assert client.get_shell_msg(timeout=PATIENCE)["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    log = read_log(next(tmp_path.glob("cell/*.tsv")))
    pd.testing.assert_frame_equal(without_time(log), without_time(certify(tmp_path / "whole")))
