"""The pages lead somewhere and say what is there: links, files, line counts, the lecture's map."""

import re
from functools import cache
from urllib.parse import unquote

import pytest
from recommended import NOTEBOOKS, PAGES, README, ROOT, inline_code, markdown, without_blocks

TEXTS = [*PAGES, ROOT / "CHANGELOG.md", *NOTEBOOKS]
CONTRIBUTING, LECTURE, HOUSE = ROOT / "CONTRIBUTING.md", ROOT / "docs/lecture.md", ROOT / "docs/house.md"
NAMED = [path for path in PAGES if path != CONTRIBUTING]  # which has a test of its own for the files that it names
LINK = r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(<?((?:[^()\s]|\([^()\s]*\))+)>?\)"  # brackets within brackets: one level
TAG = r"(?:src|href)=[\"']([^\"']+)[\"']"


def name(path):
    """A path as the tests' names have it."""
    return str(path.relative_to(ROOT))


def links(path):
    """(text, file, anchor) of every link to a file of the project, or to a heading of the same page."""
    for text in markdown(path):
        prose = re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$|`[^`\n]*`", "", without_blocks(text), flags=re.S)
        for said, target in re.findall(LINK, prose) + [("", target) for target in re.findall(TAG, prose)]:
            if not re.match(r"[a-z]+:", target):
                file, _, anchor = target.partition("#")
                yield said, (path.parent / unquote(file)).resolve() if file else path, unquote(anchor)


@cache
def headings(path):
    """{anchor: heading} of a page, as GitHub makes anchors, or of a notebook, as JupyterLab and nbconvert do."""
    found = [line for text in markdown(path) for line in re.findall(r"^#+ +(.+?) *$", without_blocks(text), re.M)]
    if path.suffix == ".ipynb":
        return {re.sub(r"[*`]", "", line).replace(" ", "-"): line for line in found}
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-"): line for line in found}


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(path):
    found = list(links(path))
    assert [name(file) for _, file, _ in found if not file.exists()] == []
    assert [(name(file), anchor) for _, file, anchor in found if anchor and anchor not in headings(file)] == []


@pytest.mark.parametrize("path", NAMED, ids=name)
def test_every_file_that_is_named_is_there(path):
    folders = "lib|tests|docs|profiles|sweeps|results|benchmarks|notebooks"
    code = [code for text in markdown(path) for code in inline_code(text)]
    named = [word for word in code if re.fullmatch(rf"({folders})/[\w./-]+\.(py|yaml|md|csv|ipynb)", word)]
    assert [word for word in named if not (ROOT / word).exists()] == []


def test_the_readme_is_short_and_opens_with_what_it_is_one_figure_and_the_two_commands():
    text = markdown(README)[0]
    first = text.split("\n## ")[0]
    assert len(text.splitlines()) <= 120 and len(re.findall(r"!\[|<img ", first)) == 1
    assert re.search("^make .*^make test", first, re.M | re.S)


def test_every_page_of_docs_is_one_click_from_the_readme():
    assert {path for path in PAGES if path.parent == LECTURE.parent} <= {file for _, file, _ in links(README)}


def test_the_lectures_map_calls_sections_by_their_names_and_every_notebook_has_its_place():
    sections = [(said, headings(file)[anchor], file) for said, file, anchor in links(LECTURE) if anchor]
    assert [said for said, heading, _ in sections if said != heading] == []
    assert {file for _, _, file in sections} == set(NOTEBOOKS)


def lines_of(pattern):
    """How many lines of Python the files of lib have that match the pattern."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in ROOT.glob(f"lib/{pattern}"))


def test_the_house_has_every_room_and_the_method_and_the_whole_about_as_many_lines_as_it_says():
    text = markdown(HOUSE)[0]
    rooms = {path.name for path in (ROOT / "lib").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    named = {room for cell in re.findall(r"^\| (`[^|]+`) \|", text, re.M) for room in re.findall(r"`([^`]+)`", cell)}
    assert named == rooms - {"__init__.py"}
    method, whole = (int(count.replace(",", "")) for count in re.findall(r"about ([\d,]+) lines$", text, re.M))
    counted = sum(map(lines_of, ("bounds/*.py", "sampling/*.py", "smoothing.py")))
    assert abs(counted / method - 1) < 0.1 and abs(lines_of("**/*.py") / whole - 1) < 0.2
    assert f"are {method:,} lines" in markdown(README)[0]
