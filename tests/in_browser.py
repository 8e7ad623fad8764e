"""A headless Chromium for tests of pages, and what it says of a page; without one the tests are skipped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lib.machine.browser import NAMES, browser_path

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@contextmanager
def browser() -> Iterator[Any]:
    """A browser of playwright; skips the test, saying why, where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
    path = browser_path()
    if not path:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is installed")
    with playwright.sync_playwright() as p:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        opened = p.chromium.launch(executable_path=path, args=arguments)
        try:
            yield opened
        finally:
            opened.close()


class Page:
    """A page of a file, opened at a width; `asked` are its requests to others, `errors` what its console says."""

    def __init__(self, browser: Any, file: Path, width: int = 1400, fragment: str = "") -> None:
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.on("request", lambda request: self._note(request.url))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(file.as_uri() + fragment, wait_until="load")

    def _note(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            self.asked.append(url)

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")

    def violations(self) -> dict[str, list[str]]:
        """What axe finds against WCAG 2.2 AA: rule -> the places."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
        found = axe.Axe().run(self.page, options={"runOnly": {"type": "tag", "values": RULES}}).response["violations"]
        return {rule["id"]: [" ".join(map(str, node["target"])) for node in rule["nodes"]][:5] for rule in found}
