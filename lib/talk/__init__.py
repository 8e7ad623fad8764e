"""A ten-minute talk out of a team's records: `make talk`, or `python -m lib.talk talk.yaml`.

It writes one HTML deck that needs no network, a PowerPoint file to edit and, where a Chromium is installed, a PDF.
"""

from lib.config.talk import Talk, load_talk
from lib.talk.deck import as_html
from lib.talk.powerpoint import as_pptx
from lib.talk.slides import Slide, slides_of

__all__ = ["Slide", "Talk", "as_html", "as_pptx", "load_talk", "slides_of"]
