"""Answers on disk, one line each, so that no query is paid twice and a kill loses none."""

import json
import os
from pathlib import Path
from typing import Any

from filelock import FileLock

Answer = list[tuple[str, float]]  # label and score, the highest score first


class QueryLog:
    """JSON lines {key, labels, version, attempts}, appended as answers come, and brought to the disk batch by batch.

    A last line that a crash left half written is dropped, and cut off before the next is written. `lock` is held by
    whoever asks, so that two processes with one log take turns, and the second finds the answers of the first.
    ValueError where another line is damaged, with its number.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(f"{self.path}.lock")
        self.answers: dict[str, Answer] = {}
        self.version: str | None = None  # of the model, as the service said
        self._read = 0  # bytes that are whole lines
        self.refresh()

    def refresh(self) -> None:
        """Take up what others have written since."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self._read)
            *lines, _torn = file.read().split(b"\n")
        for number, line in enumerate(lines):
            try:
                row = json.loads(line)
                self.answers[row["key"]] = [(str(label), float(score)) for label, score in row["labels"]]
                self.version = row["version"] if self.version is None else self.version
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{self.path}: line {number + 1} after byte {self._read} is damaged ({error}): remove "
                                 "it, and its query is asked again") from error  # fmt: skip
        self._read += sum(len(line) + 1 for line in lines)

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Hand answers to the system, whole lines; the caller holds the lock. OSError, and the log is as it was, where
        there is no room. A killed process loses none of them; for a power cut there is `sync`.
        """
        text = "".join(json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in rows).encode()
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.ftruncate(file, self._read)  # half a line, of a crash
            os.lseek(file, self._read, os.SEEK_SET)
            left = memoryview(text)
            while left:
                left = left[os.write(file, left) :]
        except OSError:
            os.ftruncate(file, self._read)
            raise
        finally:
            os.close(file)
        self._read += len(text)
        for row in rows:
            self.answers[row["key"]] = row["labels"]
        self.version = rows[0]["version"] if rows and self.version is None else self.version

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        if self.path.exists():
            file = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)
