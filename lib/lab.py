"""Open JupyterLab in the project's root, on copies of the notebooks in lab/ that are yours to change.

    python -m lib.lab

What follows is JupyterLab's own, such as --no-browser. Copies that you have changed are left as they are.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lib.machine.provenance import PROJECT_ROOT
from lib.runner.jobs import check_kernel
from lib.runner.lab import LAB, prepare

RUNNER = PROJECT_ROOT / "lib/runner"


def settings() -> list[str]:
    """How JupyterLab is started: in the root, with the first copy open."""
    first = min(LAB.glob("*.ipynb"))
    return [f"--ServerApp.root_dir={PROJECT_ROOT}", f"--LabApp.default_url=/lab/tree/{LAB.name}/{first.name}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Make the copies and start JupyterLab; 2 where the kernel python3 is not this environment's."""
    try:
        check_kernel()
    except ValueError as error:
        print(f"lib.lab: {error}", file=sys.stderr)
        return 2
    for line in prepare():
        print(line)
    os.environ.setdefault("PYTHONSTARTUP", str(RUNNER / "kernel_start.py"))  # for the kernels
    paths = [os.environ.get("JUPYTER_CONFIG_PATH"), str(RUNNER / "jupyter")]  # no question about news on the first page
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(path for path in paths if path)
    from jupyterlab.labapp import LabApp  # a second to import

    LabApp.launch_instance([*settings(), *(sys.argv[1:] if argv is None else argv)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
