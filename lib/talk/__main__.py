"""`make talk`: build/talk/deck.html, deck.pptx and, where a Chromium is installed, deck.pdf."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from lib.machine.browser import browser_path
from lib.machine.files import atomic_write
from lib.machine.provenance import PROJECT_ROOT
from lib.talk import as_html, as_pptx, load_talk, slides_of


def main() -> int:
    """0 where all is written; a wrong talk.yaml is told in one line."""
    parser = argparse.ArgumentParser(prog="python -m lib.talk", description=__doc__)
    parser.add_argument("talk", nargs="?", type=Path, help="what the team says: a copy of docs/talk.yaml")
    parser.add_argument("--out", type=Path, default=PROJECT_ROOT / "build/talk", help="folder (build/talk)")
    options = parser.parse_args()
    try:
        talk = load_talk(options.talk)
        slides = slides_of(talk)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"lib.talk: {error}\n")
        return 2
    page = options.out / "deck.html"
    atomic_write(page, as_html(slides, talk.title))
    atomic_write(options.out / "deck.pptx", as_pptx(slides))
    written = [page, options.out / "deck.pptx"]
    if browser := browser_path():
        written.append(as_pdf(browser, page))
    sys.stdout.write("".join(f"{path}\n" for path in written))
    return 0


def as_pdf(browser: str, page: Path) -> Path:
    """The deck printed by a headless browser, a page a slide. CalledProcessError where the browser fails."""
    target = page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder) / "deck.pdf"
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                 "--virtual-time-budget=8000", "--no-pdf-header-footer", f"--user-data-dir={folder}/profile",
                 f"--print-to-pdf={printed}", f"{page.resolve().as_uri()}?print-pdf"]  # fmt: skip
        subprocess.run([browser, *words], check=True, capture_output=True, timeout=120)
        atomic_write(target, printed.read_bytes())
    return target


if __name__ == "__main__":
    sys.exit(main())
