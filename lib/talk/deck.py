"""The talk as one HTML page: reveal.js and every picture inside it, so that it needs no network and no folder."""

import html
import re
from collections.abc import Sequence
from importlib.resources import files

import pandas as pd

from lib.figures.publishing import svg_of
from lib.tables import right_aligned
from lib.talk.slides import Slide, alt_text

CSS = """
.reveal { font-size: 34px; color: #111; }
.reveal h1, .reveal h2 { text-transform: none; font-size: 46px; color: #111; text-align: left; margin: 0 0 24px; }
.reveal .slides section { text-align: left; height: 700px; box-sizing: border-box; padding: 10px 20px; }
.reveal ul { display: block; margin-left: 1em; } .reveal li { margin-bottom: 12px; }
.reveal figure { margin: 0; text-align: center; } .reveal figure svg { height: 570px; max-width: 1220px; }
.reveal table { font-size: 26px; margin: 0; border-collapse: collapse; }
.reveal table.short { font-size: 30px; } .reveal table.short th, .reveal table.short td { padding: 4px 14px; }
.reveal table th, .reveal table td { padding: 2px 10px; text-align: left; border-bottom: 1px solid #bbb; }
.reveal table td { white-space: pre-line; line-height: 1.15; }
.reveal table + ul { font-size: 24px; margin-top: 8px; } .reveal table + ul code { font-size: 20px; }
.reveal table th.number, .reveal table td.number { text-align: right; }
.reveal p.run { position: absolute; left: 20px; bottom: 0; margin: 0; font-size: 22px; color: #595959; }
.reveal code { font-size: 24px; overflow-wrap: anywhere; }
.reveal .slide-number, .reveal .slide-number * { background: #333; color: #fff; font-size: 22px; line-height: 1.3; }
.reveal .slide-number { right: 110px; }
.reveal .slide-number a { display: inline-block; min-width: 24px; min-height: 24px; padding: 0 4px; }
"""


def as_html(slides: Sequence[Slide], title: str) -> str:
    """The deck; S shows the speaker's notes, and ?print-pdf after its address a page for each slide.

    ModuleNotFoundError, saying what to install, without sphinx-revealjs, which brings reveal.js.
    """
    try:
        assets = files("sphinx_revealjs") / "_static/revealjs"
    except ModuleNotFoundError:
        raise ModuleNotFoundError('the deck needs sphinx-revealjs: pip install -e ".[talk]", or make') from None
    read = lambda path: (assets / path).read_text(encoding="utf-8").replace("</script", "<\\/script")  # noqa: E731
    css = "\n".join(read(path) for path in ("dist/reveal.css", "dist/theme/white.css"))
    css = re.sub(r"@import[^;]+;|@font-face\s*{[^}]*}", "", css)  # a system's own type: no request for a font
    sections = "\n".join(_section(slide) for slide in slides)
    options = (
        "{width:1280,height:720,hash:true,slideNumber:'c/t',transition:'none',center:false,scrollActivationWidth:null,"
        "plugins:[RevealNotes]}"
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{css}{CSS}</style></head>
<body><main class="reveal"><div class="slides">
{sections}
</div></main>
<script>{read("dist/reveal.js")}</script><script>{read("plugin/notes/notes.js")}</script>
<script>Reveal.initialize({options});</script></body></html>
"""


def _section(slide: Slide) -> str:
    parts = [f"<h2>{html.escape(slide.title)}</h2>"]
    if slide.figure is not None:
        parts.append(f"<figure>{svg_of(slide.figure, alt_text(slide))}</figure>")
    if slide.table is not None:
        parts.append(_table(slide.table))
    if slide.points:
        parts.append("<ul>" + "".join(f"<li>{_point(point)}</li>" for point in slide.points) + "</ul>")
    if slide.run_id and slide.figure is None:
        parts.append(f'<p class="run">{html.escape(slide.run_id)}</p>')
    parts.append(f'<aside class="notes">{html.escape(slide.notes)}</aside>')
    return "<section>" + "".join(parts) + "</section>"


def _point(text: str) -> str:
    said, found, command = text.partition("python -m ")
    return html.escape(said) + (f"<code>{html.escape(found + command)}</code>" if found else "")


def _table(table: pd.DataFrame) -> str:
    short = ' class="short"' if len(table) < 7 and len(table.columns) < 6 else ""
    kinds = [' class="number"' if right else "" for right in right_aligned(table)]
    head = "".join(f'<th scope="col"{kind}>{html.escape(str(name))}</th>' for kind, name in zip(kinds, table.columns))
    rows = "".join(
        "<tr>" + "".join(f"<td{kind}>{html.escape(str(value))}</td>" for kind, value in zip(kinds, row)) + "</tr>"
        for row in table.itertuples(index=False)
    )
    return f"<table{short}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
