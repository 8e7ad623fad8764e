"""The certification log: one row an image, written so that a killed run goes on where it stopped.

`runs/x/sigma_0.25.tsv` has that name only once it is whole, with its manifest `sigma_0.25.json` beside it.
Until then it is `sigma_0.25.tsv.partial` with `sigma_0.25.json.partial`. The first six columns are those of
Cohen et al. 2019, so the papers' own analysis code reads the file; the counts behind them let anyone certify
again at another alpha.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from glob import escape
from io import FileIO
from itertools import zip_longest
from math import fsum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lib.datasets import ImageKey
from lib.machine.files import atomic_write, named_error, partial_path
from lib.records.probe import Probe, difference
from lib.records.recount import wrong_radius
from lib.records.row import HEADER, Row, read_rows
from lib.records.seen import Seen

Read = Callable[[list[int]], list[str]]


def _no_pixels(ids: list[int]) -> list[str]:
    if ids:
        raise ValueError(f"images {ids[:5]} are told by their files: give read, ids -> digests of their pixels")
    return []


class Record:
    """A certification log: new, resumed, or already complete.

    `path`: the final name, ending in .tsv. `parameters`: whatever defines the numbers, as JSON values;
    nothing about this machine or this moment. `images`: image index -> its digest and label (`image_keys`), in the
    order in which the rows will come. `probe`: f's answers to the probe (`lib.records.probe`). `read`: ids -> digests
    of the pixels, asked where the keys are of files (`lib.records.seen`). Rows that an earlier process left under the
    same name are taken up: `done` lists their images, `todo` the others.

        with Record("runs/digits/sigma_0.25.tsv", parameters, images, probe) as record:
            for batch in batches_of(record.todo):
                record.append(rows_of(batch))
            record.finish(environment)

    ValueError where the files on disk were made with other parameters or by another f, hold a corrupt row, a radius
    that does not follow from its counts, or other images.
    RuntimeError where another process is writing the same record.
    """

    def __init__(
        self,
        path: str | Path,
        parameters: Mapping[str, object],
        images: Mapping[int, ImageKey],
        probe: Probe,
        read: Read = _no_pixels,
    ) -> None:
        self.path, self.images, self.ids = _checked_path(path), dict(images), list(images)
        self._seen = Seen(self.path, self.images, read)
        self.done: list[int] = []
        self.parameters = json.loads(_to_json(parameters))  # as they come back from disk: tuples become lists
        self.probe = probe
        self._partial = partial_path(self.path)
        self._partial_manifest = partial_path(self.path.with_suffix(".json"))
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        self._file: FileIO | None = None
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
        first = len(self.done)
        got, expected = [row.idx for row in rows], self.ids[first : first + len(rows)]
        if self._file is None:
            raise ValueError(f"rows {got} cannot be appended: {self.path} is complete or closed")
        if got != expected:
            raise ValueError(f"rows must follow the order of ids: expected images {expected}, got {got}")
        read = {row.idx: row.image for row in rows if self.images[row.idx].stamp is not None}
        self._check_rows(rows, {i: self.images[i].digest for i in got} | read, "rows")
        self._write("".join(row.line() for row in rows))
        self._seen.keep(read)
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
        facts = self._manifest() | {"environment": environment, "seconds": round(seconds, 3)}
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
        self._check_manifest(self.path.with_suffix(".json"))
        self._take_rows(self.path)
        if self.todo:
            raise ValueError(f"{self.path} is complete without images {self.todo[:5]} of ids")
        self.close()

    def _resume(self) -> None:
        if self._partial_manifest.exists() or self._partial.exists():
            self._check_manifest(self._partial_manifest)
        else:
            atomic_write(self._partial_manifest, _to_json(self._manifest()))
        self._partial.touch()
        os.truncate(self._partial, self._take_rows(self._partial))
        self._file = self._partial.open("ab", buffering=0)  # nothing is left to be written when it is closed
        if self._file.tell() == 0:
            self._write(HEADER)

    def _write(self, text: str) -> None:
        assert self._file is not None, "the callers have opened it"
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

    def _manifest(self) -> dict[str, object]:
        return {"parameters": self.parameters, "probe": self.probe}

    def _check_manifest(self, path: Path) -> None:
        manifest = _read_manifest(path)
        different = _differences(manifest["parameters"], self.parameters)
        found = (
            f"was made with other parameters: {different}" if different else difference(manifest["probe"], self.probe)
        )
        if found:
            advice = f"Choose another path than {self.path}, or delete it and its manifest to make it anew"
            raise ValueError(f"{path}: {found}. {advice}")

    def _take_rows(self, path: Path) -> int:
        """Learn which images are done; returns how many bytes of the file are whole lines."""
        rows, size = read_rows(path)
        self.done = [row.idx for row in rows]
        for number, (got, expected) in enumerate(zip_longest(self.done, self.ids[: len(rows)]), start=2):
            if got != expected:
                raise ValueError(f"{path}, line {number}: image {got} where ids has {expected}")
        self._check_rows(rows, self._seen.digests({row.idx: row.image for row in rows}), str(path))
        wrong = wrong_radius(rows)
        if wrong:
            number = rows.index(wrong) + 2
            raise ValueError(
                f"{path}, line {number}: radius {wrong.radius} does not follow from its counts; got {wrong}"
            )
        return size

    def _check_rows(self, rows: Iterable[Row], digests: Mapping[int, str], where: str) -> None:
        for row in rows:
            found = _unlike(row, self.parameters, digests[row.idx], self.images[row.idx].label)
            if found:
                raise ValueError(f"{where}: image {row.idx} {found}; choose another path")


def _unlike(row: Row, parameters: Mapping[str, Any], image: str, label: int) -> str:
    """What tells a row from one of this run and this image; "" where nothing does."""
    if row.image != image or row.label != label:
        return f"had other pixels or another label ({row.image}, {row.label}; now {image}, {label})"
    for name in ("sigma", "alpha", "seed", "n0", "noise", "bound"):
        if name in parameters and getattr(row, name) != parameters[name]:
            return f"has {name} {getattr(row, name)!r}, its run {parameters[name]!r}"
    most = parameters.get("n", row.n)
    if row.n > most or (row.n < most and parameters.get("rule", {}).get("name") == "AfterN"):
        return f"has n {row.n}, its run {most}"
    return ""


def rows_elsewhere(
    path: Path,
    parameters: Mapping[str, object],
    images: Mapping[int, ImageKey],
    probed: Callable[[list[int]], Probe],
    read: Read = _no_pixels,
) -> dict[int, Row]:
    """Rows of `images` in the other records of the same name beside `path`, finished or not, that are the same run.

    Same parameters, same pixels (`read` as in `Record`) and labels, same answers of f to the probe, which `probed`
    takes with the images of given ids: a run with more images takes them up.
    """
    name, mine = escape(path.stem.rpartition("-")[0]), json.loads(_to_json(parameters))
    found: dict[int, Row] = {}
    for log in [*path.parent.glob(f"{name}-????????.tsv"), *path.parent.glob(f"{name}-????????.tsv.partial")]:
        try:
            manifest = _read_manifest(_manifest_of(log))
            if log.name.startswith(path.name) or manifest["parameters"] != mine:
                continue
            rows = [row for row in read_rows(log)[0] if row.idx in images]
            digests = Seen(log, images, read).digests({row.idx: row.image for row in rows})
            same = {row.idx: row for row in rows if not _unlike(row, mine, digests[row.idx], images[row.idx].label)}
            if same and wrong_radius(same.values()) is None:
                kept = manifest["probe"]
                found |= same if not difference(kept, probed(kept["ids"])) else {}
        except (ValueError, OSError, KeyError, TypeError):  # damaged, or gone meanwhile: nothing to take from it
            continue
    return found


def _manifest_of(log: Path) -> Path:
    partial = log.suffix == ".partial"
    manifest = (log.with_suffix("") if partial else log).with_suffix(".json")
    return partial_path(manifest) if partial else manifest


def _checked_path(path: str | Path) -> Path:
    if Path(path).suffix != ".tsv":
        raise ValueError(f"path must end in .tsv; got {path}")
    return Path(path)


def _read_manifest(path: Path) -> dict:
    if not path.exists():
        advice = "nobody knows which parameters made the rows beside it: delete them, or choose another path"
        raise ValueError(f"{path} is missing; {advice}")
    try:
        manifest = json.loads(path.read_text())
        return {"parameters": dict(manifest["parameters"]), "probe": manifest.get("probe")}
    except (ValueError, KeyError, TypeError) as error:
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
