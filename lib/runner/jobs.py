"""A job is one notebook with its parameters: planned and checked here, executed by lib.run.

Everything that can be refused is refused here, before anything is written or started.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager

from lib.config import NOTEBOOKS, Run, field_names, load_profile, parse
from lib.config.fields import refuse_unknown
from lib.machine.provenance import PROJECT_ROOT
from lib.runner.inputs import check_device, check_inputs, check_methods, fingerprint

OUTPUT_FOLDERS = ("figures", "tables", "records")


@dataclass(frozen=True)
class Job:
    """One notebook with its parameters, and where its files go."""

    notebook: Path
    profile: str
    config: Run

    @property
    def name(self) -> str:
        """The notebook's name, without .ipynb."""
        return self.notebook.stem

    @property
    def folder(self) -> Path:
        """Where everything that the job writes goes."""
        return self.config.run_path.resolve()

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as papermill and JSON take them: lists, not tuples."""
        values = dataclasses.asdict(self.config)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def file(self, ending: str) -> Path:
        """.ipynb is the finished notebook, .json its manifest, .failed.ipynb a failed one."""
        return self.folder / f"{self.name}{ending}"

    def outputs(self, since: float = 0) -> list[Path]:
        """The files in figures, tables and records written after `since` (seconds since 1970)."""
        found = [path for folder in OUTPUT_FOLDERS for path in sorted((self.folder / folder).rglob("*"))]
        files = [path for path in found if path.is_file() and path.suffix not in (".lock", ".partial", ".seen", ".tmp")]
        return [path for path in files if path.stat().st_mtime >= since - 1]  # some disks keep whole seconds


def plan(names: Sequence[str], profile: str, settings: Sequence[tuple[str, str]]) -> list[Job]:
    """A checked job for each notebook. ValueError or FileNotFoundError for the first that is wrong."""
    check_kernel()
    for name, count in Counter(name for name, _ in settings).items():
        if count > 1:
            texts = [text for key, text in settings if key == name]
            raise ValueError(f"-p {name} is there {count} times, with {', '.join(texts)}: keep one")
    jobs = [plan_one(notebook_path(name), profile, settings) for name in names]
    for job in jobs:
        check_job(job)
        check_device(job.config)
    return jobs


def check_job(job: Job) -> None:
    """ValueError or FileNotFoundError where something that the job reads is not there, or its folder can't be one."""
    try:
        check_inputs(job.config)
        check_methods(job.config)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{job.name}: {error}") from error


def plan_one(
    notebook: Path, profile: str, settings: Sequence[tuple[str, str]] = (), point: Mapping[str, Any] | None = None
) -> Job:
    """One job: the profile's values, then a sweep's, then the command line's, checked by the notebook's dataclass.

    What it reads from the disk is not looked for: `check_job` does that.
    """
    refuse_unknown([notebook.stem], NOTEBOOKS, "notebook")
    kind = NOTEBOOKS[notebook.stem]
    try:
        refuse_unknown(point or {}, field_names(kind), "parameter")
        values = load_profile(profile, notebook.stem) | dict(point or {})
        values |= {name: parse(kind, name, text) for name, text in settings}
        job = Job(notebook, profile, kind(**values))
        overrides(job)  # refuses a parameters cell that does not fit the dataclass
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"{notebook.stem}: {error}") from error
    return job


def notebook_path(name: str) -> Path:
    """The file of a notebook given by its name or its path. FileNotFoundError where there is none."""
    path = Path(name) if name.endswith(".ipynb") else PROJECT_ROOT / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        raise FileNotFoundError(f"notebook {name!r}: no file {path}; known: {', '.join(NOTEBOOKS)}")
    return path.resolve()


def check_kernel() -> None:
    """ValueError where the kernel python3 is another interpreter's, with other packages than ours.

    ipykernel's own specification says "python", which jupyter_client takes for the running interpreter.
    """
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # this environment's kernels before the user's
    program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    if program not in {"python", "python3", f"python3.{sys.version_info.minor}", sys.executable}:
        mend = f"{sys.executable} -m jupyter kernelspec remove python3"
        raise ValueError(f"the kernel python3 runs {program}, not {sys.executable}; remove it: {mend}")


def cell_parameters(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Names and values in the cell tagged `parameters`. ValueError if it holds more than typed literals."""
    sources = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(sources) != 1:
        raise ValueError(f"{len(sources)} cells are tagged `parameters`; one is expected")
    values = {}
    for line in ast.parse(sources[0]).body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name) or not line.value:
            raise ValueError(f"parameters cell: `name: type = literal` expected, not {ast.unparse(line)!r}")
        values[line.target.id] = ast.literal_eval(line.value)
    return values


def overrides(job: Job) -> dict[str, Any]:
    """What papermill has to inject: the parameters that differ from the notebook's own cell.

    ValueError where the cell and the dataclass do not name the same parameters: papermill would set a
    variable that the notebook never reads.
    """
    defaults = cell_parameters(nbformat.read(job.notebook, as_version=4))
    odd = sorted(defaults.keys() ^ job.parameters.keys())
    if odd:
        raise ValueError(f"the parameters cell and lib.config differ in {', '.join(odd)}")
    return {name: value for name, value in job.parameters.items() if value != defaults[name]}


def inputs_hash(job: Job) -> str:
    """SHA-256 of what a run depends on: parameters, source of the notebook (no outputs) and of lib, files, versions."""
    cells = [(cell.cell_type, cell.source) for cell in nbformat.read(job.notebook, as_version=4).cells]
    source = "\n".join(text for kind, text in cells if kind == "code")
    files = sorted((PROJECT_ROOT / "lib").rglob("*.py"))
    code = [(path.relative_to(PROJECT_ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in files]
    read = fingerprint(job.config, source)
    return hashlib.sha256(json.dumps([job.parameters, cells, code, read], sort_keys=True).encode()).hexdigest()


def up_to_date(job: Job) -> bool:
    """Whether a finished run of the same inputs is there, with every file that it wrote."""
    try:
        manifest = json.loads(job.file(".json").read_text(encoding="utf-8"))
        inputs, outputs = manifest["inputs"], [job.folder / name for name in manifest["outputs"]]
    except (OSError, ValueError, KeyError, TypeError):  # no manifest, or one that another hand has changed
        return False
    return inputs == inputs_hash(job) and all(path.is_file() for path in [job.file(".ipynb"), *outputs])
