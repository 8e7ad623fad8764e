"""The house: rooms import one way, in the order that lib/__init__ gives, and every file says its one job."""

import ast
import re
from pathlib import Path

import pytest

LIB = Path(__file__).parents[1] / "lib"
FILES = sorted(path for path in LIB.rglob("*.py") if path != LIB / "__init__.py")
HOUSE = ast.get_docstring(ast.parse((LIB / "__init__.py").read_text())).split("\n\n")[-1]
ORDER = [name.removesuffix(".py") for name in re.findall(r"\b(\w+(?=/)|\w+\.py)\b", HOUSE)]
NAMES = [path.relative_to(LIB).as_posix() for path in FILES]


def imported(path):
    """The modules of lib that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lib":
            names = [node.module] if node.module != "lib" else [f"lib.{alias.name}" for alias in node.names]
            yield from names


def room(path):
    return path.relative_to(LIB).parts[0].removesuffix(".py")


def test_the_page_shows_every_room_once():
    rooms = {
        path.name.removesuffix(".py")
        for path in LIB.iterdir()
        if path.name[0] not in "_." and path.suffix in ("", ".py")
    }
    assert sorted(ORDER) == sorted(rooms) and len(HOUSE.splitlines()) <= 15


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_room_imports_one_below_it(path):
    below = ORDER[ORDER.index(room(path)) + 1 :]
    assert [module for module in imported(path) if module.split(".")[1] in below] == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_first_line_of_a_file_says_its_one_job(path):
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
    assert 15 <= len(first) <= 117 and first[-1] in ".:"


def test_no_file_of_a_room_imports_in_a_circle():
    modules = {f"lib.{path.relative_to(LIB).with_suffix('').as_posix().replace('/', '.')}": path for path in FILES}
    arrows = {name: {m for m in imported(path) if m in modules} for name, path in modules.items()}
    while free := [name for name, others in arrows.items() if not others & arrows.keys()]:
        for name in free:
            del arrows[name]
    assert not arrows
