"""Copies of the notebooks to work in, in a folder that git ignores: no answer changes a tracked file.

A copy has no outputs: who is asked to guess should not see the answer below. Its metadata say of which sources it is a
copy, so that one that nobody has changed follows the original.
"""

import hashlib
import json
from pathlib import Path

import nbformat

from lib.config import NOTEBOOKS
from lib.machine.files import atomic_write
from lib.machine.provenance import PROJECT_ROOT

LAB = PROJECT_ROOT / "lab"


def prepare(folder: Path = LAB, originals: Path = PROJECT_ROOT / "notebooks") -> list[str]:
    """Make or renew the copies in `folder`, and say in a line each what was done and what was left alone."""
    paths = [originals / f"{name}.ipynb" for name in NOTEBOOKS]
    said = [renew(path, folder / path.name) for path in paths if path.is_file()]
    return [line for line in said if line]


def renew(original: Path, copy: Path) -> str:
    """A fresh copy where there is none, or one that nobody has changed. A changed one is never touched."""
    notebook = nbformat.read(original, as_version=4)
    now = sources_hash(notebook)
    if copy.is_file():
        mine, made_of = state(copy)
        if made_of == now:
            return ""
        if mine != made_of:
            return f"{copy.name}: yours stays, though there is a newer one; rename yours, and you get a copy of it"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata["kit"] = {"copy_of": now}
    copy.parent.mkdir(exist_ok=True)
    atomic_write(copy, (nbformat.writes(notebook) + "\n").encode())
    return f"{copy.name}: copied"


def state(copy: Path) -> tuple[str, str]:
    """The hash of a copy's cells, and that of the cells that it was made of; differing ones where it can't be read."""
    try:
        notebook = nbformat.read(copy, as_version=4)
        return sources_hash(notebook), str(notebook.metadata.get("kit", {}).get("copy_of", ""))
    except Exception:  # half a file, or another hand's
        return "unreadable", ""


def sources_hash(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 of the cells' kinds and sources, whatever their outputs are."""
    cells = [(cell.cell_type, cell.source) for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()
