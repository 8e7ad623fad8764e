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
import sys
from collections.abc import Sequence

from lib.runner.execute import DAY
from lib.runner.grid import Grid, outcomes
from lib.runner.inputs import check_device
from lib.runner.jobs import up_to_date


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
        for point in [] if options.scheduler else points:  # else the workers' machines have the device
            check_device(point.job.config)
    except (ValueError, OSError) as error:
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
    from lib.runner.report import (
        publish,  # it imports torch, for seconds, which a wrong grid and the workers do without
    )

    complete = [point for point in points if point.job.config.run_dir not in failures]
    publish(complete, points[0].job.folder.parent, grid.name)
    for failure in failures.values():
        print(f"lib.sweep: {failure}", file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
