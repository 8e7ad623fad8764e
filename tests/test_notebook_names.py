"""No variable of a notebook bears a parameter's name: its set-up cell can be run again after all others."""

import ast
import symtable
from pathlib import Path

import nbformat
import pytest

from lib.config import NOTEBOOKS, field_names

FOLDER = Path(__file__).parents[1] / "notebooks"


def bound(source):
    """The names that running a cell binds in the notebook; what a function or a comprehension binds is its own."""
    symbols = symtable.symtable(source, "cell", "exec").get_symbols()
    walrus = {node.target.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.NamedExpr)}
    return {one.get_name() for one in symbols if one.is_assigned() or one.is_imported() or one.is_namespace()} | walrus


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("n = 1", {"n"}), ("n += 1", {"n"}), ("n: int = 1", {"n"}), ("(a, [n, *b]) = x", {"a", "n", "b"}),
        ("for n in x: pass", {"n"}), ("with x as n: pass", {"n"}), ("import a as n", {"n"}), ("import n.b", {"n"}),
        ("def n(a): b = 1", {"n"}), ("class n: a = 1", {"n"}), ("try: f()\nexcept E as n: pass", {"n"}),
        ("f(n := 1)", {"n"}), ("[n := a for a in x]", {"n"}), ("for i, n in x: pass", {"i", "n"}), ("del n", {"n"}),
        ("[n for n in x]", set()), ("f(n=1)", set()), ("x.n = 1", set()), ("x[n] = 1", set()), ("lambda n: n", set()),
    ],
)  # fmt: skip
def test_that_a_cell_binds(source, names):
    assert bound(source) == names


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_cell_overwrites_a_parameter(name):
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", [])]
    assert set().union(*(bound(cell.source) for cell in code)) & set(field_names(NOTEBOOKS[name])) == set()
