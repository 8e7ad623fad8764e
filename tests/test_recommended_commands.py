"""What README and the notebooks tell a reader to type exists, is spelled right, and is accepted before it runs."""

import ast
import importlib
import importlib.util
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from recommended import ROOT, of_notebooks, of_readme, runs

from lib.run import arguments
from lib.runner.grid import Grid
from lib.runner.jobs import notebook_path, plan_one

EVERY = of_readme() + of_notebooks()
MADE = [words for words in EVERY if words[0] == "make"]
MODULES = [words[2:] for words in EVERY if words[:2] == ["python", "-m"] and words[2] != "lib.run"]
SNIPPETS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
SNIPPETS += [words[2] for words in EVERY if words[:2] == ["python", "-c"]]


def plan(words):
    """Every notebook of a command, checked as lib.run does, but for the files that it reads."""
    options = arguments(words)
    assert len(dict(options.settings)) == len(options.settings), "a parameter is given twice"
    return [plan_one(notebook_path(name), options.profile, options.settings) for name in options.notebooks]


def test_there_are_commands_in_readme_and_in_each_notebook():
    assert len(of_readme()) > 10 and len(SNIPPETS) > 2
    assert {words[3][:2] for words in of_notebooks() if words[2] == "lib.run"} >= {"01", "02", "03"}


@pytest.mark.parametrize("words", runs(EVERY), ids=" ".join)
def test_a_run_that_is_recommended_is_accepted(words):
    assert plan(words)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize("words", MADE, ids=" ".join)
def test_a_make_command_that_is_recommended_has_its_target_and_runs_what_is_accepted(words):
    done = subprocess.run([*words, "-n"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for line in re.findall(r"-m lib\.run (.*)", done.stdout):
        assert plan(shlex.split(line))


@pytest.mark.parametrize("words", MODULES, ids=" ".join)
def test_another_program_that_is_recommended_exists_and_knows_its_options(words):
    source = importlib.util.find_spec(words[0])
    assert source and source.origin
    text = Path(source.origin).read_text(encoding="utf-8")
    assert [word for word in words[1:] if word.startswith("--") and f'"{word}"' not in text] == []


def test_the_sweeps_that_are_recommended_are_accepted():
    grids = [word.removeprefix("GRID=") for words in MADE for word in words if word.startswith("GRID=")]
    assert grids and all(Grid.read(ROOT / grid).points() for grid in grids)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.splitlines()[0])
def test_python_that_is_recommended_imports_what_there_is(snippet):
    imports = [node for node in ast.parse(snippet).body if isinstance(node, ast.ImportFrom)]
    assert [
        f"{node.module}.{name.name}"
        for node in imports
        for name in node.names
        if not hasattr(importlib.import_module(node.module), name.name)
    ] == []
