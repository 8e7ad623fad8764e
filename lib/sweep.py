"""Run notebooks over a grid of parameters: `python -m lib.sweep GRID.yaml [--workers N | --scheduler ADDRESS]`.

GRID.yaml says which notebooks, on which profile, what is set at every point and what is varied:

    profile: digits
    notebooks: [01_randomized_smoothing]
    parameters: {images: 100}
    grid: {n: [1000, 10_000], lr: [0.01, 0.05]}     # every combination: four points

Every point is checked before the first starts. Its files go to runs/sweeps/<name of GRID>/<hash>/, the hash being that
of parameters, notebook and lib: what is complete is skipped, and nothing stale is read. The points share their trained
weights. A failure does not stop the others; all are listed at the end. Then all.csv, .md and .tex have a row a record,
certified_accuracy.png, .pdf and .svg a curve a record.

With --workers or --scheduler whole notebooks run side by side on a Dask cluster (lib.cluster), whose workers see this
folder under the same path.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from lib.checks import refuse_unknown
from lib.jobs import Job, check_kernel, inputs_hash, notebook_path, plan_one, up_to_date
from lib.run import DAY, NotebookFailed, run


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
                raise ValueError(f"{name} = {getattr(self, name)!r}: {kind.__name__} expected")
        for name, values in self.grid.items():
            if not isinstance(values, list) or not values or name in self.parameters:
                raise ValueError(f"grid: {name} = {values!r}: a list expected, of what is not set in parameters")
        if "run_dir" in self.parameters.keys() | self.grid.keys():
            raise ValueError("run_dir is not for a grid to set: each point has its own folder")

    @classmethod
    def read(cls, path: str | Path) -> "Grid":
        """The grid in a YAML file. FileNotFoundError where there is none."""
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
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


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Leaves with code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m lib.sweep", description="Run notebooks over a grid of parameters.")
    parser.add_argument("grid", metavar="GRID.yaml", help="which notebooks and which values")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, default=1, help="points at a time on this machine (default: 1)")
    where.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, such as tcp://10.0.0.1:8786")
    parser.add_argument("--timeout", type=int, default=DAY, help="seconds for one cell (default: a day)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep: 0 all points are complete, 1 some failed, 2 wrong input, nothing started, 130 Ctrl-C."""
    options = arguments(argv)
    try:
        grid = Grid.read(options.grid)
        points = grid.points()
    except (ValueError, FileNotFoundError) as error:
        print(f"lib.sweep: {error}", file=sys.stderr)
        return 2
    todo = [point for point in points if not up_to_date(point.job)]
    print(f"{len(points)} points, {len(points) - len(todo)} complete", flush=True)
    failures: dict[str, str] = {}  # by folder
    try:
        for point, failure in outcomes(todo, options.timeout, options.workers, options.scheduler):
            print(f"{point.job.name}, {point.setting}: {'failed' if failure else 'done'}", flush=True)
            failures |= {point.job.config.run_dir: f"{point.setting}: {failure}"} if failure else {}
    except KeyboardInterrupt:
        print("lib.sweep: stopped; the same command goes on", file=sys.stderr)
        return 130
    from lib.overview import publish  # it imports torch, for seconds, which a wrong grid and the workers do without

    complete = [point for point in points if point.job.config.run_dir not in failures]
    publish(complete, points[0].job.folder.parent, grid.name)
    for failure in failures.values():
        print(f"lib.sweep: {failure}", file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
