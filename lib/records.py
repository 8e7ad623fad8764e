"""The certification log: one row an image, written so that a killed run goes on where it stopped.

`runs/x/sigma_0.25.tsv` has that name only once it is whole, with its manifest `sigma_0.25.json` beside it.
Until then it is `sigma_0.25.tsv.partial` with `sigma_0.25.json.partial`. The first six columns are those of
Cohen et al. 2019, so the papers' own analysis code reads the file; the counts behind them let anyone certify
again at another alpha.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise, zip_longest
from math import fsum
from pathlib import Path

from filelock import FileLock, Timeout

from lib.paper_logs import detect_alpha, read_log, recertify
from lib.rows import ABSTAIN, COLUMNS, HEADER, Row, read_rows

__all__ = ["ABSTAIN", "COLUMNS", "Record", "Row", "atomic_write", "detect_alpha", "merge", "partial_path",
           "read_log", "recertify"]  # fmt: skip


class Record:
    """A certification log: new, resumed, or already complete.

    `path`: the final name, ending in .tsv. `parameters`: whatever defines the numbers, as JSON values;
    nothing about this machine, this moment or this shard. `ids`: the image indices in the order in which the
    rows will come. Rows that an earlier process left under the same name are taken up: `done` lists their
    images, `todo` the others.

        with Record("runs/digits/sigma_0.25.tsv", parameters, ids) as record:
            for batch in batches_of(record.todo):
                record.append(rows_of(batch))
            record.finish(environment)

    ValueError where the files on disk were made with other parameters, hold a corrupt row or other images.
    RuntimeError where another process is writing the same record.
    """

    def __init__(self, path: str | Path, parameters: Mapping[str, object], ids: Iterable[int]) -> None:
        self.path, self.ids, self.done = _checked_path(path), [int(i) for i in ids], []
        self.parameters = json.loads(_to_json(parameters))  # as they come back from disk: tuples become lists
        self._partial = partial_path(self.path)
        self._partial_manifest = partial_path(self.path.with_suffix(".json"))
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        self._file = None
        if len(set(self.ids)) < len(self.ids):
            raise ValueError(f"ids must not repeat an image; got {self.ids}")
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def complete(self) -> bool:
        """Whether the file carries its final name."""
        return self.path.exists()

    @property
    def todo(self) -> list[int]:
        """The images without a row, in the order in which `append` expects them."""
        return self.ids[len(self.done) :]

    def append(self, rows: Iterable[Row]) -> None:
        """Write the next rows, in the order of `todo`; they are on the disk when this returns."""
        rows = list(rows)
        got, expected = [row.idx for row in rows], self.todo[: len(rows)]
        if self._file is None:
            raise ValueError(f"rows {got} cannot be appended: {self.path} is complete or closed")
        if got != expected:
            raise ValueError(f"rows must follow the order of ids: expected images {expected}, got {got}")
        self._write("".join(row.line() for row in rows))
        self.done += got

    def finish(self, environment: Mapping[str, object]) -> None:
        """Give the record its final name, and a manifest: parameters, `environment`, seconds spent.

        The seconds are the sum of the `time` column, which holds for an interrupted run too.
        """
        if self.complete:
            return
        if self.todo or self._file is None:
            raise ValueError(f"{self.path} cannot be finished: it is closed or lacks images {self.todo[:5]}")
        seconds = fsum(row.time for row in read_rows(self._partial)[0])
        facts = {"parameters": self.parameters, "environment": environment, "seconds": round(seconds, 3)}
        atomic_write(self.path.with_suffix(".json"), _to_json(facts))  # first: no finished log lacks it
        self._file.close()
        os.replace(self._partial, self.path)
        self.close()

    def close(self) -> None:
        """Let go of the file and of its lock; the rows written so far stay."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.release()
        if self.complete:
            self._partial_manifest.unlink(missing_ok=True)
            Path(self._lock.lock_file).unlink(missing_ok=True)

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        if not self.complete:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._take_lock()
        if not self.complete:  # asked again: its writer may have finished while we took the lock
            self._resume()
            return
        self._check_parameters(self.path.with_suffix(".json"))
        self._take_rows(self.path)
        if self.todo:
            raise ValueError(f"{self.path} is complete without images {self.todo[:5]} of ids")
        self.close()

    def _resume(self) -> None:
        if self._partial_manifest.exists() or self._partial.exists():
            self._check_parameters(self._partial_manifest)
        else:
            atomic_write(self._partial_manifest, _to_json({"parameters": self.parameters}))
        self._partial.touch()
        os.truncate(self._partial, self._take_rows(self._partial))
        self._file = self._partial.open("ab", buffering=0)  # nothing is left to be written when it is closed
        if self._file.tell() == 0:
            self._write(HEADER)

    def _write(self, text: str) -> None:
        data = memoryview(text.encode())
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except OSError as error:  # a full disk, say: half a line may be there, which the next resume cuts off
            self.close()
            raise _named(error, self._partial) from None

    def _take_lock(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            advice = "wait for it, or choose another path"
            raise RuntimeError(f"{self.path} is being written by another process; {advice}") from None

    def _check_parameters(self, manifest: Path) -> None:
        differences = _differences(_read_manifest(manifest)["parameters"], self.parameters)
        if differences:
            advice = f"Choose another path than {self.path}, or delete it and its manifest to make it anew"
            raise ValueError(f"{manifest} was made with other parameters: {differences}. {advice}")

    def _take_rows(self, path: Path) -> int:
        """Learn which images are done; returns how many bytes of the file are whole lines."""
        rows, size = read_rows(path)
        self.done = [row.idx for row in rows]
        for number, (got, expected) in enumerate(zip_longest(self.done, self.ids[: len(rows)]), start=2):
            if got != expected:
                raise ValueError(f"{path}, line {number}: image {got} where ids has {expected}")
        return size


def merge(paths: Sequence[str | Path], target: str | Path, ids: Iterable[int] | None = None) -> None:
    """Join finished shards (records of disjoint images, otherwise alike) into `target`, in the order of idx.

    `target` gets the bytes that one run over all the images would have written, times aside. `ids`: the
    images that must be there; without it, any are taken. ValueError for shards with other parameters, for an
    image that is in two shards, in none, or not in `ids`; FileNotFoundError for a shard that is not finished.
    """
    if not paths:
        raise ValueError("paths must name at least one shard; got none")
    shards = {_checked_path(path): _read_manifest(_finished(path).with_suffix(".json")) for path in paths}
    first = next(iter(shards))
    for shard, manifest in shards.items():
        differences = _differences(shards[first]["parameters"], manifest["parameters"])
        if differences:
            raise ValueError(f"{shard} was made with other parameters than {first}: {differences}")
    rows = sorted((row for shard in shards for row in read_rows(shard)[0]), key=lambda row: row.idx)
    _check_images([row.idx for row in rows], ids)
    with Record(target, shards[first]["parameters"], [row.idx for row in rows]) as record:
        if not record.complete:
            record.append(rows[len(record.done) :])
            record.finish({"shards": {str(path): shard["environment"] for path, shard in shards.items()}})


def partial_path(path: str | Path) -> Path:
    """Where the file that will be called `path` lives until it is whole."""
    return Path(f"{path}.partial")


def atomic_write(path: str | Path, data: str | bytes) -> None:
    """Write `data` to `path` (its folder is made) so that no reader, and no crash, ever meets half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _named(error, path) from None
    finally:
        temporary.unlink(missing_ok=True)


def _named(error: OSError, path: Path) -> OSError:
    """The same error with the file's name in its message: a failed write does not carry it."""
    return type(error)(error.errno, error.strerror or str(error), str(path))


def _check_images(got: list[int], ids: Iterable[int] | None) -> None:
    twice = sorted({i for i, j in pairwise(got) if i == j})
    if twice:
        raise ValueError(f"shards must be disjoint; images {twice} are in more than one")
    wanted = set(got if ids is None else ids)
    if wanted != set(got):
        missing, surplus = sorted(wanted - set(got)), sorted(set(got) - wanted)
        raise ValueError(f"shards must hold the images of ids; missing {missing}, not asked for {surplus}")


def _finished(path: str | Path) -> Path:
    path = _checked_path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not a finished record; run its job to the end first")
    return path


def _checked_path(path: str | Path) -> Path:
    if Path(path).suffix != ".tsv":
        raise ValueError(f"path must end in .tsv; got {path}")
    return Path(path)


def _read_manifest(path: Path) -> dict:
    if not path.exists():
        advice = "nobody knows which parameters made the rows beside it: delete them, or choose another path"
        raise ValueError(f"{path} is missing; {advice}")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; delete it and its record, or choose another path") from None


def _differences(recorded: Mapping[str, object], asked: Mapping[str, object]) -> str:
    """Each parameter that differs, with both values; "" where none does."""
    return "; ".join(
        f"{name} is {recorded.get(name, 'absent')!r} there and {asked.get(name, 'absent')!r} here"
        for name in sorted(recorded.keys() | asked.keys())
        if name not in recorded or name not in asked or recorded[name] != asked[name]
    )


def _to_json(facts: Mapping[str, object]) -> str:
    return json.dumps(facts, indent=2, sort_keys=True, allow_nan=False) + "\n"
