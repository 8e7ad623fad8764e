"""Take what a digits run has made into the project: `KIT_PROGRESS=off make`, then `python -m results.collect`."""

import re
from pathlib import Path

import nbformat

from lib.config import NOTEBOOKS, Common
from lib.environment import PROJECT_ROOT
from lib.records import atomic_write
from results.figures import RECORDS

RESULTS = Path(__file__).parent


def keep_record(folder: Path, name: str) -> None:
    """Copy a record and its manifest to results/digits, without the hash in its name."""
    for suffix in (".tsv", ".json"):
        newest = max(folder.glob(f"{name}-????????{suffix}"), key=lambda path: path.stat().st_mtime)
        target = RESULTS / "digits" / re.sub(r"-\w{8}$", "", newest.stem)
        atomic_write(target.with_name(target.name + suffix), newest.read_bytes())


def keep_notebook(executed: Path) -> None:
    """Commit the outputs of an executed notebook: copy it to notebooks/, without papermill's times and paths."""
    notebook = nbformat.read(executed, as_version=4)
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    atomic_write(PROJECT_ROOT / "notebooks" / executed.name, nbformat.writes(notebook) + "\n")


def main() -> None:
    """Keep the records of the README's figures and every notebook that the digits run has finished."""
    folder = Common().run_path
    for name in RECORDS:
        keep_record(folder / "records", name)
    for name in NOTEBOOKS:
        if (folder / f"{name}.ipynb").exists():
            keep_notebook(folder / f"{name}.ipynb")


if __name__ == "__main__":
    main()
