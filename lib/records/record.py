"""The certification log: one row an image, written so that a killed run goes on where it stopped.

`runs/x/sigma_0.25.tsv` has that name only once it is whole, with its manifest `sigma_0.25.json` beside it.
Until then it is `sigma_0.25.tsv.partial` with `sigma_0.25.json.partial`. The first six columns are those of
Cohen et al. 2019, so the papers' own analysis code reads the file; the counts behind them let anyone certify
again at another alpha.
"""

import json
import os
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from math import fsum
from pathlib import Path

from filelock import FileLock, Timeout

from lib.machine.files import atomic_write, named_error, partial_path
from lib.records.row import HEADER, Row, read_rows


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
            raise named_error(error, self._partial) from None

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
