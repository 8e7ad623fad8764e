"""The shape that every committed notebook has, so that each can be read, run, compared and presented alike."""

import ast
import dataclasses
import json
import re
import tokenize
import typing
from io import StringIO
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from lib.config import NOTEBOOKS
from lib.runner.jobs import cell_parameters

FOLDER = Path(__file__).parents[1] / "notebooks"
TAGS = {"parameters", "nbval-ignore-output", "nbval-check-output", "hide-input"}  # and atol-<number>
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|tmp|usr|opt|mnt|data|work|workspace|Users)/|[A-Z]:\\\\")


@pytest.fixture(params=NOTEBOOKS)
def path(request):
    """The file of each notebook that lib.config knows."""
    return FOLDER / f"{request.param}.ipynb"


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def lines(cell):
    """The lines of code: neither empty nor only a comment."""
    return [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]


def pictures(cell):
    """The words that stand for each picture that a cell shows, in its HTML or by itself; "" where there are none."""
    alts = []
    for out in cell.get("outputs", []):
        tags = re.findall(r"<img\b[^>]*>", "".join(out.get("data", {}).get("text/html", "")))
        alts += [re.search(r'\balt="([^"]*)"|$', tag)[1] or "" for tag in tags]
        alts += [out.metadata.get(kind, {}).get("alt", "") for kind in out.get("data", {}) if kind[:6] == "image/"]
    return alts


def nodes(notebook, *kinds):
    """The syntax nodes of these kinds in all cells. IPython's magics would not parse, and are not used."""
    trees = [ast.parse(cell.source) for cell in code(notebook)]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]


def sections(notebook):
    """The code cells under each second-level heading: heading -> cells."""
    found, heading = {}, ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = next(iter(re.findall(r"^## +(.+)", cell.source, re.MULTILINE)[::-1]), heading)
        else:
            found.setdefault(heading, []).append(cell)
    return found


def with_tag(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


# ---- the set ---------------------------------------------------------------------------------------------------


def test_there_is_one_notebook_for_each_set_of_parameters():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)


# ---- parameters ------------------------------------------------------------------------------------------------


def test_the_parameters_cell_says_the_defaults_of_the_dataclass_in_an_order_for_readers(path, notebook):
    defaults = dataclasses.asdict(NOTEBOOKS[path.stem]())
    defaults = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    assert cell_parameters(notebook) == defaults


def test_the_parameters_cell_says_the_types_of_the_dataclass(path, notebook):
    written = ast.parse(with_tag(notebook, "parameters")[0].source).body
    hints = typing.get_type_hints(NOTEBOOKS[path.stem])
    names = {name: hint.__name__ if isinstance(hint, type) else str(hint) for name, hint in hints.items()}
    names = {name: text.removesuffix(" | str") for name, text in names.items()}  # papermill reads no alternative
    types = {name: re.sub(r"tuple\[(\w+), \.\.\.\]", r"list[\1]", text) for name, text in names.items()}
    assert {line.target.id: ast.unparse(line.annotation) for line in written} == types


def test_every_parameter_is_explained_by_a_comment_on_its_line(notebook):
    source = with_tag(notebook, "parameters")[0].source
    tokens = tokenize.generate_tokens(StringIO(source).readline)
    explained = {token.start[0] for token in tokens if token.type == tokenize.COMMENT and len(token.string) > 4}
    assert [line.target.id for line in ast.parse(source).body if line.lineno not in explained] == []


def test_the_cell_after_the_parameters_checks_them(path, notebook):
    cells = code(notebook)
    after = cells[cells.index(with_tag(notebook, "parameters")[0]) + 1]
    assert f"{NOTEBOOKS[path.stem].__name__}.of(globals())" in after.source


# ---- run from top to bottom, and committed so ------------------------------------------------------------------


def test_cells_are_counted_from_1_in_order(notebook):
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))


def test_the_kernel_is_called_python3(notebook):
    assert notebook.metadata.kernelspec.name == "python3"


def test_no_cell_ended_in_an_error_or_a_warning(notebook):
    bad = [out for out in outputs(notebook) if out.output_type == "error" or out.get("name") == "stderr"]
    assert bad == []


def test_the_tags_are_those_that_pytest_and_papermill_know(notebook):
    tags = {tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    assert {tag for tag in tags - TAGS if not re.fullmatch(r"atol-0?\.\d+", tag)} == set()


def test_an_output_that_is_not_compared_has_its_band_asserted(notebook):
    ignored = with_tag(notebook, "nbval-ignore-output")
    assert [cell.source for cell in ignored if "assert " not in cell.source] == []


def test_outputs_hold_no_progress_bar_widget_or_address_of_an_object(notebook):
    text = json.dumps([out for out in outputs(notebook)])
    assert re.findall(r"\bat 0x[0-9a-f]{6,}|\d+%\||application/vnd\.jupyter\.widget", text) == []
    assert "widgets" not in notebook.metadata


def test_no_path_of_a_machine_is_left(notebook):
    for output in outputs(notebook):
        for kind in [kind for kind in output.get("data", {}) if kind.startswith("image/")]:
            del output.data[kind]  # base64 has slashes
    text = re.sub(r"[\w+/=]{200,}", "", json.dumps(notebook))  # pictures in HTML, too
    assert MACHINE_PATH.findall(text) == []


def test_nothing_is_installed_or_put_on_the_path(notebook):
    source = "\n".join(cell.source for cell in code(notebook))
    assert re.findall(r"^\s*[%!].*|sys\.path|PYTHONPATH|os\.chdir", source, re.MULTILINE) == []


# ---- size ------------------------------------------------------------------------------------------------------


def test_the_file_is_at_most_400_kb(path):
    assert path.stat().st_size <= 400_000


def test_there_are_30_to_80_cells(notebook):
    assert 30 <= len(notebook.cells) <= 80


def test_there_are_80_to_200_lines_of_code(notebook):
    assert 80 <= sum(len(lines(cell)) for cell in code(notebook)) <= 200


def test_no_line_of_code_is_longer_than_100_characters(notebook):
    assert [line for cell in code(notebook) for line in cell.source.splitlines() if len(line) > 100] == []


def test_the_code_can_be_read_aloud_without_nested_comprehensions_and_walruses(notebook):
    kinds = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    outer = nodes(notebook, *kinds)
    inside = [node for one in outer for node in ast.walk(one) if node is not one and isinstance(node, kinds)]
    double = [node for node in outer if len(node.generators) > 1]
    assert [ast.unparse(node) for node in (*inside, *double, *nodes(notebook, ast.NamedExpr))] == []


def test_the_words_of_a_figure_are_in_lib_captions_and_not_in_a_cell(notebook):
    calls = [node for node in nodes(notebook, ast.Call) if ast.unparse(node.func) == "figures.publish"]
    assert [ast.unparse(node)[:80] for node in calls if len(node.args) != 2 or node.keywords] == []


def test_no_cell_is_empty_or_longer_than_25_lines_the_list_of_parameters_aside(notebook):
    cells = [cell for cell in code(notebook) if cell not in with_tag(notebook, "parameters")]
    assert [cell.source for cell in cells if not 1 <= len(cell.source.splitlines()) <= 25] == []


def test_at_most_3_functions_are_defined_and_no_class(notebook):
    assert len(nodes(notebook, ast.FunctionDef, ast.AsyncFunctionDef)) <= 3
    assert nodes(notebook, ast.ClassDef) == []


def test_imports_are_in_one_cell(notebook):
    importing = [cell for cell in code(notebook) if re.search(r"^\s*(import|from) ", cell.source, re.MULTILINE)]
    assert len(importing) == 1


# ---- what a reader finds ---------------------------------------------------------------------------------------


def test_it_opens_with_a_title_and_the_time_it_takes(notebook):
    first = notebook.cells[0].source
    assert first.startswith("# ") and re.search(r"\bCPU\b", first) and re.search(r"\bGPU\b", first)


def test_every_picture_has_alt_text(notebook):
    shown = [alt for cell in code(notebook) for alt in pictures(cell)]
    assert shown, "a notebook without a picture"
    assert [alt for alt in shown if len(alt.split()) < 4] == []
    assert re.findall(r"!\[\s*\]\(|<img(?![^>]*\balt=)", prose(notebook)) == []


def test_every_picture_is_read_in_the_cell_after_it(notebook):
    following = [after for cell, after in pairwise(notebook.cells) if pictures(cell)]
    unread = [cell for cell in following if cell.cell_type != "markdown" or cell.source.startswith("#")]
    assert [cell.source[:60] for cell in unread] == []
    assert not pictures(notebook.cells[-1])


def test_figures_are_numbered_in_the_order_of_the_cells(notebook):
    said = [
        output["data"].get("text/plain", "") for cell in code(notebook) for output in cell.outputs if "data" in output
    ]
    numbers = [int(found[1]) for text in said if (found := re.match(r"Figure (\d+)[. ]", text))]
    assert numbers and numbers == sorted(numbers) and set(numbers) == set(range(1, numbers[-1] + 1))


def test_formulas_and_prices_are_not_taken_for_one_another(notebook):
    """A dollar that is no formula is escaped; a command of a formula has one backslash."""
    assert re.findall(r"(?<![\\$])\$\d[\d.,]* [a-z]{2,}", prose(notebook)) == []
    assert re.findall(r"\\\\(?=[a-zA-Z])", prose(notebook)) == []


@pytest.mark.parametrize(("name", "paper"), [("01", "cohen2019"), ("02", "salman2020"), ("03", "comparison")])
def test_the_curves_of_a_paper_stand_beside_its_points_where_it_has_the_data(name, paper):
    (path,) = FOLDER.glob(f"{name}_*.ipynb")
    notebook = nbformat.read(path, as_version=4)
    assert f'("{paper}", data.name)' in "\n".join(cell.source for cell in code(notebook))
    curves = [ast.unparse(node) for node in nodes(notebook, ast.Call) if "accuracy_curves" in ast.unparse(node.func)]
    assert any("paper=" in call for call in curves)


def test_every_assert_says_what_does_not_hold(notebook):
    assert [ast.unparse(node) for node in nodes(notebook, ast.Assert) if node.msg is None] == []


def test_a_paragraph_with_percentages_says_whose_they_are(notebook):
    """A run with other parameters keeps the text: what it says must stay true beside other tables and figures."""
    told = re.compile(r"default parameters|[Pp]aper|published|ImageNet")
    percentages = re.compile(r"\d %(?! intervals)")
    paragraphs = [text.replace("99.9 %", "") for text in prose(notebook).split("\n\n")]  # a level of confidence
    assert [text for text in paragraphs if percentages.search(text) and not told.search(text)] == []


def test_every_section_that_computes_has_a_check(notebook):
    setup = cells_until_parameters_are_checked(notebook)
    unchecked = {
        heading
        for heading, cells in sections(notebook).items()
        if not any(cell in setup for cell in cells)
        and not any(re.search(r"^\s*assert |\bcheck|\bobserve", cell.source, re.MULTILINE) for cell in cells)
    }
    assert unchecked == set()
    assert nodes(notebook, ast.Assert)


def cells_until_parameters_are_checked(notebook):
    """Imports, parameters and their check: nothing is computed there."""
    cells = code(notebook)
    return cells[: cells.index(with_tag(notebook, "parameters")[0]) + 2]


def test_the_source_of_the_function_that_matters_is_shown(notebook):
    assert "getsource" in "\n".join(cell.source for cell in code(notebook))


def test_there_are_three_to_six_exercises_and_a_folded_answer(notebook):
    exercises = re.findall(r"^#+ .*\bexercise \d", prose(notebook), re.MULTILINE | re.IGNORECASE)
    assert 3 <= len(exercises) <= 6
    assert "<details" in prose(notebook)


def test_it_ends_with_commands_to_try_and_references(path, notebook):
    headings = re.findall(r"^#+ +(.+?)\s*$", prose(notebook), re.MULTILINE)
    assert headings[-1] == "References"
    assert re.search(rf"python -m lib\.run {path.stem}\b.* -p \w+ ", prose(notebook))


def test_the_commands_to_try_name_parameters_that_exist(path, notebook):
    commands = re.findall(r"python -m lib\.run .*", prose(notebook))
    named = {name for command in commands if path.stem in command for name in re.findall(r"-p (\w+)", command)}
    assert named - {field.name for field in dataclasses.fields(NOTEBOOKS[path.stem])} == set()
