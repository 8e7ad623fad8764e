"""A notebook of a few cells, its parameters and its profile, for the tests of lib.runner and lib.run."""

import json
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib import run
from lib.config import Common
from lib.config.fields import parameter
from lib.runner import jobs


@dataclass(frozen=True)
class Tiny(Common):
    """The parameters of the notebooks of this file."""

    rate: float = parameter(0.5, "a rate", above=0, below=1)
    steps: tuple[int, ...] = parameter((1, 2), "steps", min=1)


WORK = """\
from pathlib import Path
for folder in ("figures", "tables"):
    (Path(run_dir) / folder).mkdir(parents=True, exist_ok=True)
    (Path(run_dir) / folder / "curve.svg").write_text(str(n))
(Path(run_dir) / "figures" / "curve.png").write_text(str(n))
print("n is", n, "and steps are", steps)"""


def parameters_cell():
    """The defaults of Tiny as a parameters cell holds them."""
    values = jobs.Job(Path("tiny.ipynb"), "digits", Tiny()).parameters
    lines = [f"{name}: {type(value).__name__} = {value!r}  # help" for name, value in values.items()]
    return new_code_cell("\n".join(lines), metadata={"tags": ["parameters"]})


def write_notebook(folder, *sources):
    """tiny.ipynb with these cells after its parameters."""
    cells = [new_markdown_cell("# Tiny"), parameters_cell(), *map(new_code_cell, sources)]
    nbformat.write(new_notebook(cells=cells), folder / "tiny.ipynb")


class Kit:
    """A folder with one notebook and one profile; `kit("-p", "n", "5")` runs it and returns the exit code."""

    def __init__(self, folder, *sources):
        self.folder, self.runs = folder, folder / "run"
        write_notebook(folder, *sources)
        (folder / "profile.yaml").write_text(f"common: {{run_dir: {self.runs}}}\ntiny: {{n: 50}}\n")

    def command(self, *words):
        return [str(self.folder / "tiny.ipynb"), "--profile", str(self.folder / "profile.yaml"), *words]

    def __call__(self, *words):
        return run.main(self.command(*words))

    def job(self, *settings):
        return jobs.plan_one(self.folder / "tiny.ipynb", str(self.folder / "profile.yaml"), settings)

    def left(self):
        """The names of what lies in the run's folder, folders and the hidden lock aside."""
        return sorted(path.name for path in self.runs.glob("[!.]*") if path.is_file())

    def manifest(self):
        return json.loads((self.runs / "tiny.json").read_text())

    def notebook(self, name="tiny.ipynb"):
        return nbformat.read(self.runs / name, as_version=4)
