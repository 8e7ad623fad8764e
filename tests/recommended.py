"""The commands that README and the notebooks recommend, as lists of words."""

import re
import shlex
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]


def commands(text: str) -> list[list[str]]:
    """The lines of ```sh blocks and the inline code of `text` that call make or a module of the kit."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    split = [
        shlex.split(line, comments=True) for line in lines if re.match(r"(\.venv/bin/)?(python -[mc]|make\b)", line)
    ]
    return [[words[0].removeprefix(".venv/bin/"), *words[1:]] for words in split]


def of_readme() -> list[list[str]]:
    """Those of the README."""
    return commands((ROOT / "README.md").read_text(encoding="utf-8"))


def of_notebooks() -> list[list[str]]:
    """Those in the text of the notebooks."""
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    cells = [cell for path in paths for cell in nbformat.read(path, as_version=4).cells]
    return [words for cell in cells if cell.cell_type == "markdown" for words in commands(cell.source)]


def runs(found: list[list[str]]) -> list[list[str]]:
    """The arguments of those that call lib.run."""
    return [words[3:] for words in found if words[:3] == ["python", "-m", "lib.run"]]
