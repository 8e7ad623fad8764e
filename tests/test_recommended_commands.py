"""What the pages and the notebooks tell a reader to type exists, is spelled right, and is accepted before it runs."""

import ast
import importlib
import importlib.util
import pydoc
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from processes import PATIENCE
from recommended import NOTEBOOKS, PAGES, ROOT, inline_code, markdown, of, of_notebooks, of_readme, runs

from lib import config
from lib.run import arguments
from lib.runner.grid import Grid
from lib.runner.jobs import notebook_path, plan_one

TEXTS = [text for path in PAGES + NOTEBOOKS for text in markdown(path)]
EVERY = [list(words) for words in dict.fromkeys(map(tuple, of(PAGES + NOTEBOOKS)))]
MADE = [words for words in EVERY if words[0] == "make"]
MODULES = [words[2:] for words in EVERY if words[:2] == ["python", "-m"] and words[2] != "lib.run"]
SNIPPETS = [block for path in PAGES for block in re.findall(r"^```python\n(.*?)^```", *markdown(path), re.M | re.S)]
SNIPPETS += [words[2] for words in EVERY if words[:2] == ["python", "-c"]]
CODE = [code for text in TEXTS for code in inline_code(text)]
NAMES = sorted({name for code in CODE for name in re.findall(r"^(lib(?:\.\w+)+)(?:\(.*)?$", code)})


def plan(words):
    """Every notebook of a command, checked as lib.run does, but for the files that it reads."""
    options = arguments(words)
    assert len(dict(options.settings)) == len(options.settings), "a parameter is given twice"
    return [plan_one(notebook_path(name), options.profile, options.settings) for name in options.notebooks]


def unknown(words):
    """The options and files of a program that it does not know, or that are not there; its module must be."""
    source = importlib.util.find_spec(words[0])
    assert source and source.origin
    text = Path(source.origin).read_text(encoding="utf-8")
    options = [word for word in words[1:] if word.startswith("--") and f'"{word}"' not in text]
    return options + [word for word in words[1:] if word.startswith("tests/") and not (ROOT / word).exists()]


def test_there_are_commands_on_every_side():
    assert len(of_readme()) > 10 and len(of(PAGES)) > 2 * len(of_readme()) and len(SNIPPETS) > 3 and len(NAMES) > 5
    assert {words[3][:2] for words in of_notebooks() if words[2:3] == ["lib.run"]} >= {"01", "02", "03"}


@pytest.mark.parametrize("words", runs(EVERY), ids=" ".join)
def test_a_run_that_is_recommended_is_accepted(words):
    assert plan(words)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize("words", MADE, ids=" ".join)
def test_a_make_command_that_is_recommended_has_its_target_and_runs_what_is_accepted(words):
    done = subprocess.run([*words, "-n"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    for line in re.findall(r"-m lib\.run (.*)", done.stdout):
        assert plan(shlex.split(line))
    for line in re.findall(r"-m ((?:benchmarks|results)\.\w.*)", done.stdout):
        assert unknown(shlex.split(line)) == []


@pytest.mark.parametrize("words", MODULES, ids=" ".join)
def test_another_program_that_is_recommended_exists_and_knows_its_options(words):
    assert unknown(words) == []


def test_the_sweeps_that_are_recommended_are_accepted():
    grids = [word.removeprefix("GRID=") for words in MADE for word in words if word.startswith("GRID=")]
    assert grids and all(Grid.read(ROOT / grid).points() for grid in grids)


def test_a_parameter_that_is_named_alone_is_one_of_a_notebook():
    known = {name for parameters in config.NOTEBOOKS.values() for name in config.field_names(parameters)}
    named = [name for code in CODE if code.startswith("-p ") for name in re.findall(r"-p (\w+)", code)]
    assert len(named) > 5 and [name for name in named if name not in known] == []


def test_the_readmes_example_of_ones_own_model_runs():
    snippet = next(one for one in SNIPPETS if "my_model.eval()" in one)
    my_model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    found = {"my_model": my_model, "images": torch.rand(2, 3, 8, 8), "ids": [3, 20]}
    exec(snippet, found)
    assert found["labels"].shape == found["result"].radius.shape == found["result"].predict.shape == (2,)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.splitlines()[0])
def test_python_that_is_recommended_imports_what_there_is(snippet):
    imports = [node for node in ast.parse(snippet).body if isinstance(node, ast.ImportFrom)]
    assert [
        f"{node.module}.{name.name}"
        for node in imports
        for name in node.names
        if not hasattr(importlib.import_module(node.module), name.name)
    ] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_the_library_in_the_text_is_there(name):
    assert pydoc.locate(name) is not None
