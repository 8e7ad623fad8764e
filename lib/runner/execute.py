"""Execute one notebook with papermill, so that no failure looks finished.

Papermill by itself only warns of unknown parameters, checks no types, writes a failed notebook under the
final name and takes `sys.exit(0)` in a cell for success.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import papermill
from filelock import FileLock, Timeout
from papermill.exceptions import PapermillExecutionError

from lib.machine.files import atomic_write
from lib.machine.provenance import describe
from lib.runner.jobs import Job, inputs_hash, overrides

DAY = 86_400  # seconds


class NotebookFailed(Exception):
    """A notebook did not run to its end. The message says in which cell, why, and where the copy is."""


def run(job: Job, timeout: int = DAY) -> None:
    """Execute one notebook. NotebookFailed if a cell fails, exits, or takes more than `timeout` seconds.

    The finished notebook of an earlier run is set aside first, as <name>.previous.ipynb: this run overwrites
    the figures and tables beside it, so it must not look current, even if this run is killed.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(job.folder / f".{job.name}.lock", timeout=0):
            run_alone(job, timeout)
    except Timeout:
        raise NotebookFailed(f"{job.name}: another process is running it in {shown(job.folder)}") from None


def run_alone(job: Job, timeout: int) -> None:
    """`run`, for the one process that may write the job's files."""
    started, inputs = datetime.now(UTC), inputs_hash(job)
    for ending in (".json", ".ipynb"):
        if job.file(ending).exists():
            job.file(ending).replace(job.file(f".previous{ending}"))
    execute(job, timeout)
    job.file(".partial.ipynb").replace(job.file(".ipynb"))
    write_manifest(job, inputs, started)
    for ending in (".previous.json", ".previous.ipynb", ".failed.ipynb"):
        job.file(ending).unlink(missing_ok=True)


def execute(job: Job, timeout: int) -> None:
    """Run the cells into <name>.partial.ipynb; if one does not complete, keep <name>.failed.ipynb."""
    partial, failed = job.file(".partial.ipynb"), job.file(".failed.ipynb")
    partial.unlink(missing_ok=True)
    changed = overrides(job)
    cells = Cells(job.name, len(nbformat.read(job.notebook, as_version=4).cells) + bool(changed))
    failure = None
    try:
        papermill.execute_notebook(
            job.notebook, partial, changed, kernel_name="python3", language="python", cwd=job.notebook.parent,
            progress_bar=False, execution_timeout=timeout, on_cell_start=cells.start, stderr_file=sys.stderr,
            extra_arguments=["--log-level=ERROR"],  # the kernel's warnings about itself
        )  # fmt: skip
    except (Exception, KeyboardInterrupt) as error:  # a cell, a timeout, a dead kernel, Ctrl-C: reported alike
        failure = error
    completed = partial.is_file() and tidy(partial, job)
    if failure or not completed:
        message = cells.failure(failure)
        if partial.is_file():
            partial.replace(failed)
            message += f"\n  what ran is kept in {shown(failed)}"
        raise NotebookFailed(message) from failure


def tidy(partial: Path, job: Job) -> bool:
    """Take widget states (hundreds of KB) and absolute paths out of a notebook; did every cell complete?

    After `sys.exit(0)` papermill raises nothing; that cell's status is failed, and the later ones' pending.
    """
    notebook = nbformat.read(partial, as_version=4)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.papermill.update(input_path=job.notebook.name, output_path=job.file(".ipynb").name)
    atomic_write(partial, nbformat.writes(notebook) + "\n")
    states = {cell.metadata.get("papermill", {}).get("status") for cell in notebook.cells}
    return states == {"completed"}


class Cells:
    """Follows the cells of one run: a line at most every two seconds, and which cell was the last."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total = name, total
        self.index, self.reported = 0, float("-inf")
        self.cell: nbformat.NotebookNode | None = None

    def start(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        """Called by nbclient at the start of each cell."""
        self.index, self.cell = cell_index + 1, cell
        if time.monotonic() - self.reported >= 2:
            self.reported = time.monotonic()
            print(f"{self.name}: cell {self.index}/{self.total}", flush=True)

    def failure(self, error: BaseException | None) -> str:
        """Which cell failed and why, with the head of its source and the line that raised.

        `error` is what papermill raised: None after `sys.exit(0)`, which it takes for success.
        """
        if error is None:
            reason = "SystemExit: the cell leaves the notebook, so those after it never ran"
        elif isinstance(error, PapermillExecutionError):
            reason = f"{error.ename}: {error.evalue}"
        else:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if self.cell is None:
            return f"{self.name}: did not start: {reason}"
        line = failing_line(error.traceback, error.exec_count) if isinstance(error, PapermillExecutionError) else 0
        return f"{self.name}: failed in cell {self.index}/{self.total}: {reason}\n{excerpt(self.cell.source, line)}"


def failing_line(traceback: Sequence[str], cell: int) -> int:
    """The last line of the cell with the execution count `cell` in IPython's traceback, from 1; 0 where it has none."""
    text = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(traceback))
    found = re.findall(rf"^\s*Cell In ?\[{cell}\], line (\d+)", text, re.MULTILINE)
    return int(found[-1]) if found else 0


def excerpt(source: str, line: int, head: int = 8) -> str:
    """The head of a cell, and its line `line` (0: none) marked by >, also where it lies further down."""
    lines = source.splitlines()
    shown = [i for i in range(1, len(lines) + 1) if i <= head or i == line]
    gap = "    ...\n" if line > head + 1 else ""
    return "\n".join(f"{gap if i > head else ''}{'  > ' if i == line else '    '}{lines[i - 1]}" for i in shown)


def write_manifest(job: Job, inputs: str, started: datetime) -> None:
    """<name>.json: what the notebook was made with, when, and which files it wrote beside it."""
    written = job.outputs(since=started.timestamp())
    manifest = {
        "notebook": job.notebook.name,
        "profile": job.profile,
        "parameters": job.parameters,
        "inputs": inputs,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - started).total_seconds(), 1),
        "outputs": [path.relative_to(job.folder).as_posix() for path in written],
        "environment": describe(job.config.device),
    }
    atomic_write(job.file(".json"), json.dumps(manifest, indent=2) + "\n")


def shown(path: Path) -> str:
    """A path as a person in the current folder would write it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def summary(jobs: Sequence[Job]) -> str:
    """Where the executed notebooks, figures, tables and records are; a file's formats share a line."""
    lines = [f"notebook  {shown(job.file('.ipynb'))}" for job in jobs]
    formats: dict[Path, list[str]] = {}
    for path in dict.fromkeys(path for job in jobs for path in job.outputs()):  # notebooks share folders
        stem = path.parent if path.parent.name == "records" else path.with_suffix("")  # records are many
        formats.setdefault(stem, []).append(path.suffix)
    for stem, endings in formats.items():
        if stem.name == "records":
            lines.append(f"records   {shown(stem)}: {endings.count('.tsv')} logs")
            continue
        suffix = endings[0] if len(endings) == 1 else f"{{{','.join(endings)}}}"
        lines.append(f"{stem.parent.name:9} {shown(stem)}{suffix}")
    return "\n".join(lines)
