"""Figures leave here: into files for slides, papers and the web, and into the notebook with a numbered caption."""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from lib.captions import caption
from lib.figures.style import STYLE
from lib.machine.files import atomic_write

LARGEST_SLIDER = 150_000  # bytes in the notebook
# Moved, the slider shows another of its pictures, says its label beside it and as the words that stand for it. It shows
# itself once the first picture has come: where a page runs no scripts there is that picture, and no dead slider.
SLIDE = (
    "const f=this.closest('figure'),i=f.querySelector('img'),d=JSON.parse(this.dataset.frames)[this.value];"
    "i.src='data:image/webp;base64,'+d[1];i.alt=i.dataset.alt+' Shown: '+d[0];f.querySelector('output').value=d[0]"
)
SHOW = "this.closest('figure').querySelector('label').style.display='flex'"


def publish(figure: Figure, stem: str | Path, alt: str = "", run_id: str = "") -> None:
    """Save a figure (see `save`) and show it in the notebook, with its caption of lib.captions and its number below.

    The caption is also what stands for the picture where it cannot be seen. KeyError where there is none. The files
    name their run: `run_id`, else the run's folder that the stem lies in (runs/digits/figures/NAME: runs/digits).
    """
    said = caption(Path(stem).name)
    save(figure, stem, said, run_id or run_of(stem))
    _show(_image(figure, said), said)


def slider(frames: Sequence[Figure], labels: Sequence[str], stem: str | Path, start: int | None = None) -> None:
    """Show figures of one size, each with its label, one at a time under a slider; save that at `start` (see `save`).

    `start`: which one is seen first, and alone where no scripts run; the middle one where it is None. The pictures are
    part of the output: no server, no widget, no network. ValueError where they are not of one size, or need more than
    150 KB: fewer frames, or smaller ones.
    """
    if not frames or len(frames) != len(labels):
        raise ValueError(f"a slider needs a label for each frame; got {len(frames)} frames and {len(labels)} labels")
    if len({tuple(frame.get_size_inches()) for frame in frames}) > 1:
        raise ValueError("a slider needs frames of one size, or the page would jump")
    start, said = len(frames) // 2 if start is None else start, caption(Path(stem).name)
    save(frames[start], stem, f"{said} Shown: {labels[start]}", run_of(stem))
    data = [[label, _encoded(frame, 32)] for label, frame in zip(labels, frames, strict=True)]
    bar = (
        '<label style="display:none;gap:1em;align-items:center;max-width:40em">'
        f'<input type="range" min="0" max="{len(frames) - 1}" value="{start}" style="flex:1" aria-label="slider" '
        f'data-frames="{html.escape(json.dumps(data, ensure_ascii=False))}" oninput="{html.escape(SLIDE)}">'
        f'<output style="min-width:9em">{html.escape(labels[start])}</output></label>'
    )
    picture = _image(frames[start], f"{said} Shown: {labels[start]}", 32)
    shown = f'<img data-alt="{html.escape(said)}" onload="{html.escape(SHOW)}"{picture.removeprefix("<img")}{bar}'
    if len(shown) > LARGEST_SLIDER:
        raise ValueError(f"{stem}: a slider of {len(shown) // 1000} KB, at most {LARGEST_SLIDER // 1000}: fewer frames")
    _show(shown, said)


def save(figure: Figure, stem: str | Path, alt: str, run_id: str = "") -> None:
    """Write <stem>.png for slides (1920 pixels wide where the figure is 16:9), .pdf for a paper, .svg for the web.

    All three carry `alt` and `run_id` in their metadata and no date: the same figure gives the same bytes. `run_id`
    also stands small in the lower right corner of the files, not of the figure.
    """
    stem = Path(stem)
    metadata = {
        "png": {"Description": alt, "Source": run_id, "Software": None},
        "pdf": {"Subject": alt, "Keywords": run_id, "CreationDate": None, "Producer": None},
        "svg": {"Description": alt, "Source": run_id, "Date": None, "Creator": None},
    }
    corner = figure.text(0.998, 0.002, run_id, ha="right", va="bottom", fontsize=7, color="#595959")
    try:
        with mpl.rc_context(STYLE):
            for kind, facts in metadata.items():
                # Not with_suffix: a noise level in the name has a point.
                atomic_write(stem.with_name(f"{stem.name}.{kind}"), _rendered(figure, kind, 200, facts))
    finally:
        corner.remove()


def run_of(stem: str | Path) -> str:
    """The run whose figure this is: <run>/figures/NAME -> the last two folders of <run>; "" for another place."""
    folder = Path(stem).parent
    return "/".join(folder.parent.parts[-2:]).lstrip("/") if folder.name == "figures" else ""


def png_of(figure: Figure, alt: str, run_id: str = "") -> bytes:
    """The figure as PNG for a slide, with `alt` and `run_id` in its metadata."""
    return _rendered(figure, "png", 150, {"Description": alt, "Source": run_id, "Software": None})


def svg_of(figure: Figure, alt: str) -> str:
    """The figure as an SVG element of a page; `alt` is what a screen reader says."""
    with mpl.rc_context(STYLE | {"svg.fonttype": "path"}):
        drawn = _rendered(figure, "svg", 100, {"Date": None, "Creator": None}).decode()
    return drawn[drawn.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)


def _show(picture: str, said: str) -> None:
    """A picture with its caption, as HTML; as text the caption alone.

    A PNG output would be shown without its words by JupyterLab, and with "no description" by nbconvert.
    """
    words = f'<figcaption style="max-width:60em;padding:.3em 0">{html.escape(said)}</figcaption>'
    bundle = {"text/html": f'<figure style="margin:0">{picture}{words}</figure>', "text/plain": said}
    display(bundle, raw=True)


def _image(figure: Figure, alt: str, colours: int = 64) -> str:
    source = f"data:image/webp;base64,{_encoded(figure, colours)}"
    return f'<img alt="{html.escape(alt)}" style="max-width:100%" src="{source}">'


def _encoded(figure: Figure, colours: int) -> str:
    """A small copy of a figure for the notebook: 80 dots an inch, few colours; lossless webp, in base64."""
    with mpl.rc_context(STYLE):
        drawn = Image.open(io.BytesIO(_rendered(figure, "png", 80, {"Software": None})))
    buffer = io.BytesIO()
    few = drawn.convert("RGB").quantize(colours, Image.Quantize.MAXCOVERAGE)  # keeps the colour of a thin line
    few.convert("RGB").save(buffer, "webp", lossless=True, quality=100)
    return base64.b64encode(buffer.getvalue()).decode()


def _rendered(figure: Figure, kind: str, dpi: int, metadata: Mapping[str, str | None]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()
