"""The commands that the pages and the notebooks recommend, as lists of words."""

import re
import shlex
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("results/**/*.md"))]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))

_STARTS = r"([A-Z_]+=\S+ )?(\.venv/bin/)?(?=python -[mc]|make\b)"


def markdown(path: Path) -> list[str]:
    """The text of a page, or of each text cell of a notebook."""
    if path.suffix == ".md":
        return [path.read_text(encoding="utf-8")]
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


def without_blocks(text: str) -> str:
    """`text` without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def inline_code(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`\n]+)`", without_blocks(text))


def commands(text: str) -> list[list[str]]:
    """The lines of ```sh and of indented blocks and the inline code of `text` that call make or a module of the kit."""
    lines = [line for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    lines += re.findall(r"^    (\S.*)", without_blocks(text), re.M) + inline_code(text)
    return [shlex.split(re.sub(_STARTS, "", line), comments=True) for line in lines if re.match(_STARTS, line)]


def of(paths: list[Path]) -> list[list[str]]:
    """The commands of these pages or notebooks, in their order."""
    return [words for path in paths for text in markdown(path) for words in commands(text)]


def of_readme() -> list[list[str]]:
    """Those of the README."""
    return of([README])


def of_notebooks() -> list[list[str]]:
    """Those in the text of the notebooks."""
    return of(NOTEBOOKS)


def runs(found: list[list[str]]) -> list[list[str]]:
    """The arguments of those that call lib.run."""
    return [words[3:] for words in found if words[:3] == ["python", "-m", "lib.run"]]
