"""The exercises as notebooks print them: a cell with a stub and its check, and the folds in the text below it."""

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
CHECK = re.compile(r'exercises\.check\(\s*"([^"]+)"')


@dataclass(frozen=True)
class Printed:
    """One exercise of a notebook."""

    name: str
    stub: str  # the source of the cell, check included
    task: str  # the text above it
    below: str  # the text below it, with hints and solution

    @property
    def solution(self) -> str:
        """The code of the fold named Solution."""
        found = re.search(r"<summary>Solution</summary>.*?```python\n(.*?)```", self.below, re.DOTALL)
        assert found, f"{self.name}: no python block in a fold named Solution below its cell"
        return found[1]

    @property
    def solved(self) -> str:
        """The cell with the solution in the place of the stub."""
        lines = self.stub.splitlines()
        check = next(i for i, line in enumerate(lines) if "exercises.check(" in line)
        return "\n".join([self.solution, *lines[check:]])


def printed(notebook: nbformat.NotebookNode) -> list[Printed]:
    """The exercises of a notebook, in order."""
    triples = zip(notebook.cells, notebook.cells[1:], notebook.cells[2:], strict=False)
    return [
        Printed(found[1], cell.source, before.source, after.source)
        for before, cell, after in triples
        if cell.cell_type == "code" and (found := CHECK.search(cell.source))
    ]


def imports(notebook: nbformat.NotebookNode) -> str:
    """The cell with a notebook's imports."""
    return next(cell.source for cell in notebook.cells if cell.cell_type == "code")
