"""The talk as a PowerPoint file to edit: native text and tables, pictures with alt text, speaker's notes."""

import io
from collections.abc import Sequence
from typing import Any

import pandas as pd

from lib.figures.publishing import png_of
from lib.tables import right_aligned
from lib.talk.slides import Slide, alt_text

WIDTH, HEIGHT = 13.333, 7.5  # inches


def as_pptx(slides: Sequence[Slide]) -> bytes:
    """The file's bytes. ModuleNotFoundError, saying what to install, without python-pptx."""
    try:
        from pptx import Presentation
        from pptx.util import Inches
    except ModuleNotFoundError:
        raise ModuleNotFoundError('PowerPoint needs python-pptx: pip install -e ".[talk]", or make') from None
    deck = Presentation()
    deck.slide_width, deck.slide_height = Inches(WIDTH), Inches(HEIGHT)
    for slide in slides:
        _add(deck, slide)
    buffer = io.BytesIO()
    deck.save(buffer)
    return buffer.getvalue()


def _add(deck: Any, slide: Slide) -> None:
    from pptx.util import Inches, Pt

    page = deck.slides.add_slide(deck.slide_layouts[5])  # a title alone
    title = page.shapes.title
    title.left, title.top, title.width, title.height = (Inches(x) for x in (0.5, 0.3, WIDTH - 1, 0.9))
    title.text_frame.text = slide.title
    title.text_frame.paragraphs[0].font.size = Pt(34)
    top = 1.3
    if slide.figure is not None:
        picture = page.shapes.add_picture(
            io.BytesIO(png_of(slide.figure, alt_text(slide), slide.run_id)), Inches(1.6), Inches(top), Inches(10.1)
        )
        picture._element.nvPicPr.cNvPr.set("descr", alt_text(slide))
    if slide.table is not None:
        top = _add_table(page, slide.table, top)
    if slide.points:
        box = page.shapes.add_textbox(Inches(0.6), Inches(top), Inches(WIDTH - 1.2), Inches(HEIGHT - top - 0.6))
        box.text_frame.word_wrap = True
        for i, point in enumerate(slide.points):
            line = box.text_frame.paragraphs[0] if i == 0 else box.text_frame.add_paragraph()
            line.text = f"• {point}"
            line.font.size, line.space_after = Pt(24 if slide.table is None else 20), Pt(10)
    if slide.run_id and slide.figure is None:
        corner = page.shapes.add_textbox(Inches(0.5), Inches(HEIGHT - 0.5), Inches(4.8), Inches(0.4))
        corner.text_frame.text = slide.run_id
        corner.text_frame.paragraphs[0].font.size = Pt(14)
    page.notes_slide.notes_text_frame.text = slide.notes


def _add_table(page: Any, table: pd.DataFrame, top: float) -> float:
    """The table; returns where the next thing may begin, in inches."""
    from pptx.enum.text import PP_ALIGN
    from pptx.util import Inches, Pt

    size = 20 if len(table) < 7 and len(table.columns) < 6 else 18
    rows = [[str(value) for value in row] for row in [table.columns, *table.itertuples(index=False)]]
    heights = [0.1 + size / 60 * max(cell.count("\n") + 1 for cell in row) for row in rows]
    longest = [max(len(line) for cell in column for line in cell.split("\n")) + 2 for column in zip(*rows)]
    box = (Inches(0.5), Inches(top), Inches(WIDTH - 1), Inches(sum(heights)))
    grid = page.shapes.add_table(len(rows), len(table.columns), *box).table
    for column, count in zip(grid.columns, longest):
        column.width = Inches((WIDTH - 1) * count / sum(longest))
    for i, (row, height) in enumerate(zip(rows, heights)):
        grid.rows[i].height = Inches(height)
        for j, (text, right) in enumerate(zip(row, right_aligned(table))):
            cell = grid.cell(i, j)
            cell.text = text
            cell.margin_top = cell.margin_bottom = Inches(0.02)
            cell.margin_left = cell.margin_right = Inches(0.05)
            for line in cell.text_frame.paragraphs:
                line.font.size = Pt(size)
                line.alignment = PP_ALIGN.RIGHT if right else PP_ALIGN.LEFT
    return top + sum(heights) + 0.2
