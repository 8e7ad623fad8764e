"""The site, built once and opened from its files in a real browser."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from in_browser import Page, browser

from lib import site
from lib.machine.provenance import PROJECT_ROOT

NOTEBOOKS = [path.stem for path in site.notebooks()]
KINDS = [
    "index.html",
    f"notebooks/{NOTEBOOKS[1]}.html",
    "docs/speed.html",
    "api/bounds.html",
    "records.html",
    "search.html",
]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of the site."""
    folder = tmp_path_factory.mktemp("site")
    site.build(folder)
    return folder / "site"


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


def test_every_notebook_page_and_room_has_its_page_and_notebooks_are_offered_for_download(built):
    rooms = {path.stem for path in (PROJECT_ROOT / "lib").glob("*.py")} | {
        path.parent.name for path in (PROJECT_ROOT / "lib").glob("*/__init__.py")
    }
    assert {path.stem for path in (built / "api").glob("*.html")} == rooms - {"__init__"}
    assert {path.stem for path in (built / "docs").glob("*.html")} == {p.stem for p in PROJECT_ROOT.glob("docs/*.md")}
    assert [path.stem for path in sorted((built / "notebooks").glob("*.html"))] == NOTEBOOKS
    for name in NOTEBOOKS:
        assert (built / f"_sources/notebooks/{name}.ipynb").exists() and f"{name}.ipynb" in page(built, name)


def page(built, name):
    return (built / f"notebooks/{name}.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_pictures_have_the_words_of_the_notebook(name, built):
    outputs = [
        out
        for cell in nbformat.read(PROJECT_ROOT / f"notebooks/{name}.ipynb", 4).cells
        for out in cell.get("outputs", [])
    ]
    words = [out.metadata.get("image/png", {}).get("alt") for out in outputs if "image/png" in out.get("data", {})]
    shown = re.findall(r'<img alt="([^"]*)"', page(built, name))
    assert [alt for alt in words if alt and alt.replace("'", "&#x27;") not in shown and alt not in shown] == []


def test_links_lead_to_what_is_there(built):
    dead = []
    for file in built.rglob("*.html"):
        for target in re.findall(r'<a [^>]*href="(?!https?:|mailto:)([^"#?]+)', file.read_text(encoding="utf-8")):
            if not (file.parent / target).exists():
                dead.append((file.name, target))
    assert dead == []


def test_with_an_address_files_are_linked_and_notebooks_get_their_buttons(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_REPOSITORY", "https://example.org/kit")
    site.stage(tmp_path / "source")
    text = (tmp_path / "source/docs/house.md").read_text(encoding="utf-8")
    assert "](https://example.org/kit/blob/main/lib/__init__.py)" in text


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_asks_nobody_says_no_error_fits_its_window_and_can_be_read_by_all(kind, width, built, chromium):
    opened = Page(chromium, built / kind, width)
    opened.page.wait_for_timeout(500)
    assert (opened.asked, opened.errors) == ([], [])
    assert opened.overflow() <= 0
    assert opened.violations() == {}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_equation_of_a_notebook_is_typeset(name, built, chromium):
    opened = Page(chromium, built / f"notebooks/{name}.html").page
    opened.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
    opened.evaluate("MathJax.startup.promise")
    written = opened.locator("span.math, div.math").count()
    assert opened.locator("mjx-container").count() >= written > 0
    assert opened.locator("mjx-merror").count() == 0


def test_the_search_finds_a_word_without_a_server(built, chromium):
    opened = Page(chromium, built / "search.html", fragment="?q=Clopper")
    opened.page.wait_for_selector("ul.search li")
    assert opened.page.locator("ul.search li").count() >= 3 and opened.asked == []


def test_the_command_names_the_page_to_open():
    words = [sys.executable, "-m", "lib.site", "--help"]
    said = subprocess.run(words, cwd=PROJECT_ROOT, env=os.environ, capture_output=True, text=True, check=True).stdout
    assert "build/site" in said
