"""Small pictures of what comes out, for those who have not run it: `python -m results.gallery`, after `make site`.

The talk's slides and a page of the site are drawn by a headless Chromium; the figures come from results/figures.
"""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from lib.machine.browser import NAMES, browser_path
from lib.machine.files import atomic_write
from lib.machine.provenance import PROJECT_ROOT
from lib.talk import as_html, load_talk, slides_of

GALLERY = Path(__file__).parent / "gallery"
SHOWN = (1, 5, 7, 8)  # slides: the problem, prior work, the targets, what there is so far
PAGE = "build/site/notebooks/01_randomized_smoothing.html"
FIGURES = ("certified_accuracy", "three_papers", "paper_cifar10")
LARGEST = 60_000  # bytes


def small(image: Image.Image, width: int) -> bytes:
    """The picture as a PNG of that width in few colours. ValueError for more than 60 KB."""
    height = round(image.height * width / image.width)
    buffer = io.BytesIO()
    picture = image.convert("RGB").resize((width, height)).quantize(128, Image.Quantize.MAXCOVERAGE)
    picture.save(buffer, "png", optimize=True)
    if len(buffer.getvalue()) > LARGEST:
        raise ValueError(f"a picture of {len(buffer.getvalue()) // 1000} KB, at most {LARGEST // 1000}: less width")
    return buffer.getvalue()


def photographed(deck: Path, site: Path) -> Iterator[tuple[str, Image.Image]]:
    """The slides on one sheet, and the top of a page of the site where it has been built."""
    from playwright.sync_api import sync_playwright

    path = browser_path()
    if path is None:
        sys.exit(f"results.gallery needs a browser: none of {', '.join(NAMES)} is installed")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(deck.as_uri())
        page.wait_for_function("window.Reveal && Reveal.isReady()")
        sheet = Image.new("RGB", (2560, 1440), "white")
        for place, number in enumerate(SHOWN):
            page.evaluate(f"Reveal.slide({number})")
            page.wait_for_timeout(200)
            slide = Image.open(io.BytesIO(page.screenshot()))
            sheet.paste(slide, (place % 2 * 1280, place // 2 * 720))
        yield "talk", sheet
        if site.exists():
            page.goto(site.as_uri())
            page.wait_for_timeout(2000)
            yield "site", Image.open(io.BytesIO(page.screenshot()))
        browser.close()


def main() -> None:
    """Write results/gallery/*.png."""
    deck = PROJECT_ROOT / "build/talk/deck.html"
    atomic_write(deck, as_html(slides_of(load_talk()), load_talk().title))
    for name, picture in photographed(deck, PROJECT_ROOT / PAGE):
        atomic_write(GALLERY / f"{name}.png", small(picture, 900 if name == "talk" else 720))
    for name in FIGURES:
        picture = Image.open(Path(__file__).parent / f"figures/{name}.png")
        atomic_write(GALLERY / f"{name}.png", small(picture, 480))


if __name__ == "__main__":
    main()
