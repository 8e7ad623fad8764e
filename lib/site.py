"""The whole course as one static site, offline: `make site` writes build/site, to be opened at index.html.

It holds the committed notebooks with their outputs, the pages, the records' tables and the API. Nothing is executed.
With KIT_REPOSITORY, the project's address on the web, files of the project are linked there, and notebooks get buttons
for Colab and Binder.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import nbformat

from lib import tables
from lib.machine.provenance import PROJECT_ROOT
from lib.records import read_log

PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
RADII = (0.0, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    """Build build/site and say where it begins."""
    argparse.ArgumentParser(
        prog="python -m lib.site", description=__doc__.split(":")[0] + ": in build/site."
    ).parse_args()
    sys.stdout.write(f"{build(PROJECT_ROOT / 'build')}\n")


def build(folder: Path) -> Path:
    """Stage the sources in folder/site-source, build folder/site; returns its first page.

    Leaves with Sphinx's code where it complains, about a dead link for example.
    """
    source, target = folder / "site-source", folder / "site"
    shutil.rmtree(source, ignore_errors=True)
    stage(source)
    words = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(source), str(target)]
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{PROJECT_ROOT}"}, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return target / "index.html"


def stage(source: Path) -> None:
    """Everything that Sphinx reads, in the folder `source`."""
    for folder in ("docs", "notebooks", "api", "_static/mathjax", "extra/results", "results"):
        (source / folder).mkdir(parents=True)
    own = PROJECT_ROOT / "docs/site"
    shutil.copy(own / "conf.py", source)
    for name in ("kit.css", "kit.js"):
        shutil.copy(own / name, source / "_static")
    shutil.copy(str(files("mathjax") / "static/mathjax/es5/tex-svg.js"), source / "_static/mathjax")
    for folder in ("results/figures", "results/gallery"):
        for place in (f"extra/{folder}", folder):  # of <img> in pages, and of pictures in Markdown
            shutil.copytree(PROJECT_ROOT / folder, source / place)
    pages = [*(PROJECT_ROOT / name for name in PAGES), *sorted((PROJECT_ROOT / "docs").glob("*.md"))]
    for path in pages:
        place = path.relative_to(PROJECT_ROOT)
        (source / place).write_text(_linked(path.read_text(encoding="utf-8"), place), encoding="utf-8")
    for path in notebooks():
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = _linked(cell.source, path.relative_to(PROJECT_ROOT))
        nbformat.write(notebook, source / "notebooks" / path.name)
    rooms = sorted(_rooms())
    for room in rooms:
        (source / f"api/{room}.rst").write_text(_room_page(room), encoding="utf-8")
    (source / "records.md").write_text(_records_page(), encoding="utf-8")
    (source / "index.md").write_text(_index(pages, rooms), encoding="utf-8")


def notebooks() -> list[Path]:
    """The committed notebooks, in their order."""
    return sorted((PROJECT_ROOT / "notebooks").glob("*.ipynb"))


def _linked(text: str, page: Path) -> str:
    """`text` with links to pages of the site as they are, others to the project on the web, or as plain words."""

    def link(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        if re.match(r"https?:|#|mailto:", target):
            return found[0]
        file, _, _ = target.partition("#")
        path = os.path.normpath(page.parent / file)
        if picture or path in PAGES or re.fullmatch(r"docs/\w+\.md|notebooks/\w+\.ipynb", path):
            return found[0]
        web = os.environ.get("KIT_REPOSITORY", "").rstrip("/")
        return f"[{words}]({web}/blob/main/{path})" if web else words

    return LINK.sub(link, text)


def _rooms() -> Iterator[str]:
    for path in (PROJECT_ROOT / "lib").iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            yield path.stem
        elif (path / "__init__.py").exists():
            yield path.name


def _room_page(room: str) -> str:
    folder = PROJECT_ROOT / "lib" / room
    modules = [f"lib.{room}"]
    if folder.is_dir():
        found = (path.relative_to(folder).with_suffix("") for path in sorted(folder.rglob("*.py")))
        modules += [f"lib.{room}." + ".".join(path.parts) for path in found if path.name != "__init__"]
    parts = [f"lib.{room}\n{'=' * (len(room) + 4)}\n\n.. currentmodule:: lib.{room}\n"]
    for module in modules:
        if module.endswith(("__main__", "kernel_start")):
            continue
        parts.append(f"{module}\n{'-' * len(module)}\n\n.. automodule:: {module}\n   :members:\n   :no-index:\n")
    return "\n".join(parts)


def _records_page() -> str:
    said = "Every committed record, read by `lib.tables.summary`, and what the papers report, in percent."
    parts = [f"# Records\n\n{said}\n"]
    for folder in sorted(path for path in (PROJECT_ROOT / "results").iterdir() if list(path.glob("*.tsv"))):
        logs = {path.stem: read_log(path) for path in sorted(folder.glob("*.tsv"))}
        table = tables.summary(logs, RADII).rename_axis("record").reset_index()
        table.columns = [f"r = {name:g}" if isinstance(name, float) else name for name in table.columns]
        parts.append(f"## {folder.name}\n\n{tables.to_markdown(table)}")
    for path in sorted((PROJECT_ROOT / "results/published").glob("*.csv")):
        said = " ".join(line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#"))
        parts.append(f"## Published: {path.stem}\n\n{said}\n\n{tables.to_markdown(tables.published(path.stem))}")
    return "\n".join(parts)


def _index(pages: list[Path], rooms: list[str]) -> str:
    def tree(caption: str, names: list[str]) -> str:
        return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *names, "```", ""])

    others = [str(path.relative_to(PROJECT_ROOT).with_suffix("")) for path in pages if path.name != "README.md"]
    read_me = _linked((PROJECT_ROOT / "README.md").read_text(encoding="utf-8"), Path("README.md"))
    trees = [
        tree("Notebooks", [f"notebooks/{path.stem}" for path in notebooks()]),
        tree("Pages", [*others, "records", "README"]),
        tree("API", [f"api/{room}" for room in rooms]),
    ]
    return read_me + "\n\n" + "\n".join(trees)


if __name__ == "__main__":
    main()
