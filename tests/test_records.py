"""The certification log: what stands in it, and that no crash, mistake or second writer can spoil it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toys import fixed_radius

from lib.datasets import ImageKey
from lib.machine.files import atomic_write, partial_path
from lib.records import ABSTAIN, COLUMNS, Record, Row

PARAMETERS = {"dataset": "digits", "sigma": 0.25, "n": 1000, "seed": 0, "radii": (0.1, 0.25)}
PARAMETERS |= {"n0": 100, "noise": "gaussian", "bound": "clopper-pearson", "rule": {"name": "AfterN"}}
IDS = list(range(0, 60, 3))
PROBE = {"logits": [[0.5, -2.0]], "tolerance": 1e-3}

# A run in a process of its own, each row with a time of its own.
WORKER = """
import sys, time
sys.path.insert(0, "tests")
from tests.test_records import IDS, PARAMETERS, PROBE, images_of, row
from lib.records import Record
with Record(sys.argv[1], PARAMETERS, images_of(IDS), PROBE) as record:
    print("open", flush=True)
    for idx in record.todo:
        started = time.perf_counter()
        time.sleep(float(sys.argv[2]))
        record.append([row(idx, time.perf_counter() - started)])
    record.finish({})
"""


def row(idx: int, seconds: float = 0.5, **changes: float) -> Row:
    """A row whose every number depends on the image; each seventh abstains."""
    n_a = 480 if idx % 7 == 0 else 900 - idx
    radius = float(fixed_radius(n_a, 1000, 0.25, 0.001))
    predict = idx % 10 if radius > 0 else ABSTAIN
    values = dict(
        idx=idx, label=idx % 5, predict=predict, radius=radius, time=seconds, n0=100, n=1000, n_a=n_a, n_b=idx,
        sigma=0.25, alpha=0.001, seed=0, noise="gaussian", bound="clopper-pearson", image=key(idx),
    ) | changes  # fmt: skip
    return Row(**{"selected": max(values["predict"], 0)} | values)


def key(idx: int) -> str:
    return f"{idx:016x}"


def images_of(ids: list[int]) -> dict[int, ImageKey]:
    return {idx: ImageKey(key(idx), idx % 5) for idx in ids}


def opened(path: Path, ids: list[int] = IDS, parameters: dict = PARAMETERS, probe: dict = PROBE) -> Record:
    return Record(path, parameters, images_of(ids), probe)


def finished(path: Path, ids: list[int] = IDS, parameters: dict = PARAMETERS, seconds: float = 0.5) -> Path:
    with opened(path, ids, parameters) as record:
        record.append([row(idx, seconds) for idx in ids])
        record.finish({"device": "cpu"})
    return path


def unfinished(path: Path, count: int) -> Path:
    with opened(path) as record:
        record.append([row(idx) for idx in IDS[:count]])
    return partial_path(path)


def without_time(path: Path) -> list[list[str]]:
    column = COLUMNS.index("time")
    rows = [line.split("\t") for line in path.read_text().split("\n")]
    return [cells[:column] + cells[column + 1 :] for cells in rows]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith(".lock")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "sigma_0.25.tsv"


# --- a run that is cut off -------------------------------------------------------------------------


def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(tmp_path):
    path, whole, lines = tmp_path / "killed.tsv", finished(tmp_path / "whole.tsv"), 1
    for rows, delay in ((0, 0.0), (1, 0.02), (2, 0.1)):
        worker = start_worker(path, seconds_a_row=0.2)
        while count_lines(path) < lines + rows:
            time.sleep(0.005)
        time.sleep(delay)
        os.kill(worker.pid, signal.SIGKILL)
        assert worker.wait() == -signal.SIGKILL and not path.exists()
        lines = count_lines(path)
    assert start_worker(path, seconds_a_row=0.0).wait() == 0
    assert without_time(path) == without_time(whole)


def start_worker(path: Path, seconds_a_row: float) -> subprocess.Popen:
    command, root = [sys.executable, "-c", WORKER, path, str(seconds_a_row)], Path(__file__).parents[1]
    worker = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "open\n"
    return worker


def count_lines(path: Path) -> int:
    return partial_path(path).read_bytes().count(b"\n")


def test_a_file_cut_off_at_any_byte_is_resumed_to_the_same_bytes(tmp_path):
    whole = finished(tmp_path / "whole.tsv", IDS[:4]).read_bytes()
    path = tmp_path / "cut.tsv"
    with opened(path, IDS[:4]):
        pass
    for size in range(len(whole) + 1):
        partial_path(path).write_bytes(whole[:size])
        with opened(path, IDS[:4]) as record:
            record.append([row(idx) for idx in record.todo])
        assert partial_path(path).read_bytes() == whole


def test_a_resumed_record_knows_its_finished_images(path):
    unfinished(path, 3)
    with opened(path) as record:
        assert (record.done, record.todo, record.complete) == (IDS[:3], IDS[3:], False)


def test_a_file_that_is_not_finished_never_has_a_final_name(path):
    unfinished(path, len(IDS))
    assert snapshot(path.parent).keys() == {"sigma_0.25.tsv.partial", "sigma_0.25.json.partial"}
    finish(path)
    assert {file.name for file in path.parent.iterdir()} == {"sigma_0.25.tsv", "sigma_0.25.json"}


def test_a_crash_between_manifest_and_final_name_is_mended_by_the_next_run(path, monkeypatch):
    unfinished(path, len(IDS))
    replace = os.replace
    with monkeypatch.context() as patch, pytest.raises(OSError, match="crash"):
        patch.setattr(os, "replace", lambda a, b: crash() if str(b).endswith(".tsv") else replace(a, b))
        finish(path)
    assert path.with_suffix(".json").exists() and not path.exists()
    finish(path)
    assert snapshot(path.parent).keys() == {"sigma_0.25.tsv", "sigma_0.25.json"}


def crash() -> None:
    raise OSError("crash")


def finish(path: Path) -> None:
    with opened(path) as record:
        record.finish({})


# --- a record that is there already ----------------------------------------------------------------


def test_a_finished_record_opens_complete_and_is_not_rewritten(path):
    before = [(p, p.stat().st_mtime_ns, p.stat().st_ino) for p in sorted(finished(path).parent.iterdir())]
    with opened(path) as record:
        assert record.complete and record.done == IDS and record.todo == []
        record.finish({"device": "another"})
    assert [(p, p.stat().st_mtime_ns, p.stat().st_ino) for p in sorted(path.parent.iterdir())] == before


@pytest.mark.parametrize("make", [finished, lambda path: unfinished(path, 3)], ids=["finished", "unfinished"])
def test_other_parameters_are_refused_with_each_difference_and_change_nothing(path, make):
    make(path)
    before = snapshot(path.parent)
    other = PARAMETERS | {"sigma": 0.5, "alpha": 0.001}
    with pytest.raises(ValueError) as error:
        opened(path, parameters=other)
    assert "alpha is 'absent' there and 0.001 here; sigma is 0.25 there and 0.5 here" in str(error.value)
    assert str(path) in str(error.value) and "delete" in str(error.value) and "seed" not in str(error.value)
    assert snapshot(path.parent) == before


@pytest.mark.parametrize("make", [finished, lambda path: unfinished(path, 3)], ids=["finished", "unfinished"])
def test_rows_without_their_manifest_are_refused(path, make):
    make(path)
    next(path.parent.glob("*.json*")).unlink()
    with pytest.raises(ValueError, match="nobody knows which parameters"):
        opened(path)


def test_other_images_are_refused(path):
    finished(path)
    with pytest.raises(ValueError, match="complete without images"):
        opened(path, [*IDS, 99])
    with pytest.raises(ValueError, match=r"line 4: image 6 where ids has 7"):
        opened(path, [0, 3, 7, *IDS[3:]])
    with pytest.raises(ValueError, match="image 57 where ids has None"):
        opened(path, IDS[:-1])


CORRUPT = {
    "too few columns": "6\t1\t6\t0.1\t0\n",
    "a word": row(6).line().replace("0.270919", "small"),
    "nan": row(6).line().replace("0.270919", "nan"),
    "a digit lost": row(6).line().replace("0.270919", "0.27091"),
    "wrong flag": row(6).line().replace("\t0\t0.500", "\t1\t0.500"),
    "empty": "\n",
    "garbage": "garbage\n",
    "zeros": "\x00" * 30 + "\n",
    "an image skipped": row(9).line(),
    "an image repeated": row(3).line(),
}


@pytest.mark.parametrize("bad", CORRUPT.values(), ids=CORRUPT)
def test_a_corrupt_row_is_refused_with_file_line_and_content(path, bad):
    partial = unfinished(path, 5)
    lines = partial.read_text().splitlines(keepends=True)
    partial.write_text("".join([*lines[:3], bad, *lines[4:]]))
    with pytest.raises(ValueError, match="line 4") as error:
        opened(path)
    assert str(partial) in str(error.value)
    assert repr(bad.rstrip("\n")) in str(error.value) or f"image {bad.split()[0]}" in str(error.value)


@pytest.mark.parametrize("column", [i for i, name in enumerate(COLUMNS) if name != "time"])
@pytest.mark.parametrize("line", [2, 3], ids=["certified", "abstained"])
def test_no_cell_can_be_changed_unnoticed(path, column, line):
    with opened(path, [3, 7, 9]) as record:
        record.append([row(idx) for idx in (3, 7, 9)])
    partial = partial_path(path)
    lines = [text.split("\t") for text in partial.read_text().split("\n")]
    cell = lines[line - 1][column]
    lines[line - 1][column] = cell[:-1] + ("1" if cell[-1] != "1" else "2")
    partial.write_text("\n".join("\t".join(cells) for cells in lines))
    with pytest.raises(ValueError, match=f"line {line} is no row of a record"):
        opened(path, [3, 7, 9])


def with_cells(**changes: object) -> str:
    """The line of image 3 with other values, and the right CRC for them."""
    return row(3, **changes).line()


@pytest.mark.parametrize(
    "changes",
    [{"sigma": 0.5}, {"alpha": 0.01}, {"seed": 1}, {"n0": 99}, {"n": 1001}, {"n": 999}, {"noise": "grid levels=16"},
     {"bound": "anytime"}, {"image": "f" * 16}, {"label": 4}, {"radius": 0.25}, {"radius": 0.3}, {"n_a": 800}],
    ids=str,
)  # fmt: skip
def test_a_row_that_was_written_for_another_run_or_image_is_refused(path, changes):
    with opened(path, [3, 7], PARAMETERS | {"alpha": 0.001}) as record:
        record.append([row(3)])
    partial = partial_path(path)
    partial.write_text(partial.read_text().replace(row(3).line(), with_cells(**changes)))
    with pytest.raises(ValueError, match=r"image 3 ha|line 2: radius"):
        opened(path, [3, 7], PARAMETERS | {"alpha": 0.001})


def test_a_second_writer_is_refused_while_the_first_is_at_work(path):
    with opened(path) as first:
        first.append([row(0)])
        with pytest.raises(RuntimeError, match="being written by another process"):
            opened(path)
        first.append([row(3)])
    with opened(path) as later:
        assert later.done == [0, 3]


# --- appending and finishing -----------------------------------------------------------------------


def test_the_first_six_columns_are_those_of_the_papers_logs(path):
    header, first, *_ = finished(path).read_text().split("\n")
    assert header.split("\t")[:6] == ["idx", "label", "predict", "radius", "correct", "time"]
    counts = "0\t0\t-1\t0.000000\t0\t0.500\t100\t1000\t480\t0\t0.25\t0.001\t0\t0"
    assert first.startswith(f"{counts}\tgaussian\tclopper-pearson\t{key(0)}\t") and len(first.split("\t")[-1]) == 8


def test_rows_out_of_order_are_refused_and_not_written(path):
    with opened(path) as record:
        record.append([row(0)])
        before = partial_path(path).read_bytes()
        for rows in ([row(6)], [row(0)], [row(3), row(9)]):
            with pytest.raises(ValueError, match="order of ids"):
                record.append(rows)
        assert partial_path(path).read_bytes() == before and record.done == [0]


def test_appended_rows_are_in_the_file_at_once(path):
    with opened(path) as record:
        record.append([row(0), row(3)])
        assert partial_path(path).read_text().endswith(row(0).line() + row(3).line())


def test_a_record_cannot_be_finished_while_images_are_missing(path):
    with opened(path) as record, pytest.raises(ValueError, match="lacks images"):
        record.finish({})


def test_the_manifest_holds_parameters_environment_and_seconds(path):
    text = finished(path).with_suffix(".json").read_text()
    parameters = PARAMETERS | {"radii": [0.1, 0.25]}
    facts = {"environment": {"device": "cpu"}, "parameters": parameters, "probe": PROBE, "seconds": 0.5 * len(IDS)}
    assert json.loads(text) == facts and text == json.dumps(facts, indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize("name", ["sigma_0.25", "log.txt"])
def test_a_path_without_tsv_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"must end in \.tsv"):
        opened(tmp_path / name)


# --- atomic_write ----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["words", b"bytes"])
def test_atomic_write_replaces_the_file_and_leaves_nothing_else(tmp_path, data):
    target = tmp_path / "new" / "file"
    atomic_write(target, "old")
    atomic_write(target, data)
    assert snapshot(target.parent) == {"file": b"words" if data == "words" else b"bytes"}


def test_a_failing_atomic_write_keeps_the_old_file(tmp_path, monkeypatch):
    atomic_write(tmp_path / "file", "old")
    monkeypatch.setattr(os, "fsync", lambda _: crash())
    with pytest.raises(OSError, match="crash"):
        atomic_write(tmp_path / "file", "new")
    assert snapshot(tmp_path) == {"file": b"old"}
