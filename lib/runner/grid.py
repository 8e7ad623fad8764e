"""The points of a sweep: a grid of parameters, each point one notebook run in a folder of its own."""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lib.config.fields import refuse_unknown, short
from lib.config.strict_yaml import read_yaml
from lib.runner.execute import NotebookFailed, run
from lib.runner.jobs import Job, check_job, check_kernel, inputs_hash, notebook_path, plan_one


@dataclass(frozen=True)
class Point:
    """One job of a sweep, and what sets it apart from the others."""

    job: Job
    varied: Mapping[str, Any]

    @property
    def setting(self) -> str:
        """Such as n = 1000, lr = 0.01."""
        return ", ".join(f"{name} = {value}" for name, value in self.varied.items()) or "as given"


@dataclass(frozen=True)
class Grid:
    """What a grid file says. ValueError where it makes no sense."""

    name: str
    profile: str
    notebooks: list[str]
    parameters: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in {"profile": str, "notebooks": list, "parameters": dict, "grid": dict}.items():
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} = {short(getattr(self, name))}: {kind.__name__} expected")
        for name, values in self.grid.items():
            if not isinstance(values, list) or not values or name in self.parameters:
                raise ValueError(f"grid: {name} = {short(values)}: a list expected, of what is not set in parameters")
        if "run_dir" in self.parameters.keys() | self.grid.keys():
            raise ValueError("run_dir is not for a grid to set: each point has its own folder")

    @classmethod
    def read(cls, path: str | Path) -> "Grid":
        """The grid in a YAML file. FileNotFoundError where there is none."""
        content = read_yaml(path)
        expected = [item.name for item in fields(cls)[1:]]
        if not isinstance(content, dict) or not {"profile", "notebooks"} <= content.keys():
            raise ValueError(f"{path}: expected the sections {', '.join(expected)}; the first two are needed")
        refuse_unknown(content, expected, f"section of {path}")
        return cls(Path(path).stem, **content)

    @property
    def run_dir(self) -> str:
        """The folder of the sweep, from the kit's root."""
        return f"runs/sweeps/{self.name}"

    def points(self) -> list[Point]:
        """Every combination for every notebook. ValueError or FileNotFoundError for the first that is wrong."""
        check_kernel()
        combinations = [dict(zip(self.grid, values)) for values in itertools.product(*self.grid.values())]
        points = [self._point(notebook_path(name), varied) for name in self.notebooks for varied in combinations]
        return list({point.job.folder: point for point in points}.values())  # a value that was listed twice runs once

    def _point(self, notebook: Path, varied: dict[str, Any]) -> Point:
        values = self.parameters | varied | {"run_dir": self.run_dir}
        job = plan_one(notebook, self.profile, point=values)
        check_job(job)
        run_dir = f"{self.run_dir}/{inputs_hash(job)[:8]}"
        return Point(replace(job, config=replace(job.config, run_dir=run_dir)), varied)


def outcomes(
    points: Sequence[Point], timeout: int, workers: int = 1, scheduler: str | None = None
) -> Iterator[tuple[Point, str]]:
    """Run the points; yields each with "" or the reason of its failure, as it ends."""
    for point in points:
        _share_weights(point.job.folder)
    if workers == 1 and not scheduler:
        yield from ((point, attempt(point.job, timeout)) for point in points)
        return
    from distributed import as_completed  # Dask is an optional dependency

    from lib.cluster import cluster

    with cluster(scheduler, workers) as client:
        print(f"dashboard: {client.dashboard_link}", flush=True)
        futures = {client.submit(attempt, point.job, timeout, pure=False): point for point in points}
        for future in as_completed(futures):
            error = future.exception()
            yield futures[future], f"{futures[future].job.name}: {error}" if error else future.result()


def attempt(job: Job, timeout: int) -> str:
    """Run a job: "" where it ends well, else why it did not."""
    os.environ.setdefault("KIT_PROGRESS", "log")  # for the kernels: bars would fill the executed notebooks
    try:
        run(job, timeout)
    except NotebookFailed as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C is meant for the sweep
            raise KeyboardInterrupt from None
        return str(error)
    except OSError as error:  # the disk is full, say
        return f"{job.name}: {error}"
    return ""


def _share_weights(folder: Path) -> None:
    """Make folder/weights the sweep's: points that differ in n alone need not train twice."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "weights").mkdir(exist_ok=True)
    with suppress(OSError):  # it exists; or Windows does not allow it, and each point trains for itself
        (folder / "weights").symlink_to("../weights", target_is_directory=True)
