"""Take what a run has made into the project: `make all`, then `python -m results.collect`.

Of another profile, by its name: `make PROFILE=cifar10`, then `python -m results.collect cifar10`.
"""

import re
import sys
from pathlib import Path

import nbformat

from lib.config import NOTEBOOKS, kit_root, load_profile
from lib.machine.files import atomic_write
from lib.machine.provenance import PROJECT_ROOT
from lib.talk.problem import FILE
from results.figures import RECORDS

RESULTS = Path(__file__).parent


def keep_record(folder: Path, name: str, target: Path) -> None:
    """Copy a record and its manifest to `target`, without the hash in its name."""
    for suffix in (".tsv", ".json"):
        newest = max(folder.glob(f"{name}-????????{suffix}"), key=lambda path: path.stat().st_mtime)
        atomic_write(target / f"{name}{suffix}", newest.read_bytes())


def keep_notebook(executed: Path) -> None:
    """Commit the outputs of an executed notebook: copy it to notebooks/, without times, paths and progress reports."""
    notebook = nbformat.read(executed, as_version=4)
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    atomic_write(PROJECT_ROOT / "notebooks" / executed.name, nbformat.writes(notebook) + "\n")


def main() -> None:
    """Keep what a profile's run has made: of digits the README's records and the notebooks, of others all records."""
    profile = sys.argv[1] if len(sys.argv) > 1 else "digits"
    folder = kit_root() / load_profile(profile, next(iter(NOTEBOOKS)))["run_dir"]
    found = {re.sub(r"-\w{8}$", "", path.stem) for path in (folder / "records").glob("*.tsv")}
    if not found:
        sys.exit(f"no records in {folder}: make PROFILE={profile} writes them")
    for name in RECORDS if profile == "digits" else sorted(found):
        keep_record(folder / "records", name, RESULTS / profile)
    if profile == "digits" and (folder / FILE).exists():
        atomic_write(RESULTS / profile / FILE, (folder / FILE).read_bytes())
    for name in NOTEBOOKS if profile == "digits" else ():
        if (folder / f"{name}.ipynb").exists():
            keep_notebook(folder / f"{name}.ipynb")


if __name__ == "__main__":
    main()
