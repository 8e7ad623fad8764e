"""Run notebooks with papermill, strictly: a wrong parameter starts nothing, no failure looks finished.

    python -m lib.run 01_randomized_smoothing --profile digits -p n 1000 -p sigmas "[0.25, 0.5]"

writes into the profile's run_dir: <notebook>.ipynb, once every cell has completed, and beside it its manifest
<notebook>.json. A run whose inputs have not changed since is not repeated.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lib.config import NOTEBOOKS
from lib.machine.provenance import PROJECT_ROOT
from lib.runner.execute import DAY, NotebookFailed, run, summary
from lib.runner.jobs import plan, up_to_date

PAPERS = ("01_", "02_", "03_")  # the notebooks of the three papers


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Leaves with code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m lib.run", description="Run notebooks strictly.")
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="name or path of a notebook")
    parser.add_argument("--papers", action="store_true", help="the notebooks of the three papers")
    parser.add_argument("--all", action="store_true", help="every notebook")
    parser.add_argument("--profile", default="digits", help="a name in profiles/ or a path")
    parser.add_argument("-p", dest="settings", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                        help="set one parameter; may be repeated")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="run even what is up to date")
    parser.add_argument("--timeout", type=int, default=DAY, help="seconds for one cell (default: a day)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="certify on a Dask cluster, such as tcp://10.0.0.1:8786")
    options = parser.parse_intermixed_args(argv)  # names before and after options
    if options.papers or options.all:
        known = [name for name in NOTEBOOKS if options.all or name.startswith(PAPERS)]
        options.notebooks += [name for name in known if (PROJECT_ROOT / f"notebooks/{name}.ipynb").is_file()]
    if not options.notebooks:
        parser.error("name a notebook, or say --papers or --all")
    return options


def join(scheduler: str) -> None:
    """Have the notebooks certify on the cluster of `scheduler`. OSError where nobody answers there."""
    from lib.cluster import cluster  # Dask is an optional dependency

    with cluster(scheduler) as client:
        print(f"dashboard: {client.dashboard_link}", flush=True)
    os.environ["KIT_SCHEDULER"] = scheduler  # for the kernels too


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for: 0 done, 1 a notebook failed, 2 wrong input, nothing started."""
    options = arguments(argv)
    os.environ.setdefault("KIT_PROGRESS", "log")  # for the kernels: bars would fill the executed notebooks
    try:
        jobs = plan(list(dict.fromkeys(options.notebooks)), options.profile, options.settings)
        if options.scheduler:
            join(options.scheduler)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"lib.run: {error}", file=sys.stderr)
        return 2
    for job in jobs:
        if not options.force and up_to_date(job):
            print(f"{job.name}: up to date")
            continue
        try:
            run(job, options.timeout)
        except (NotebookFailed, OSError) as error:  # OSError: the disk is full, say
            print(f"lib.run: {error}", file=sys.stderr)
            return 1
        print(f"{job.name}: done")
    print(summary(jobs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
