"""Sphinx's settings for the site. `python -m lib.site` stages the sources and calls it; nothing is executed again."""

import os
import re

from myst_nb.core.render import NbElementRenderer

project = "Certified robustness, reproduced in notebooks"
author = copyright = ""
html_show_copyright = False
extensions = ["myst_nb", "sphinx_copybutton", "sphinx.ext.autodoc"]
nb_execution_mode = "off"  # the committed outputs
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
myst_heading_slug_func = "conf.slug"
suppress_warnings = ["myst.header"]
exclude_patterns = ["_static", "results"]
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # of torch
autodoc_typehints = "signature"
default_role = "code"

html_context = {"default_mode": "light"}
html_theme = "sphinx_book_theme"
html_title = "Certified robustness"
html_static_path = ["_static"]
html_css_files = ["kit.css"]
html_js_files = ["kit.js"]
html_extra_path = ["extra"]
html_theme_options = {"use_download_button": True, "show_toc_level": 2, "use_fullscreen_button": False}
mathjax_path = "mathjax/tex-svg.js"  # MathJax 3.2.2, one file with all glyphs
pygments_style = "a11y-light"

REPOSITORY = os.environ.get("KIT_REPOSITORY", "")  # where the project lies on the web; "": no links there
if REPOSITORY:
    html_theme_options |= {
        "repository_url": REPOSITORY, "use_repository_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com", "binderhub_url": "https://mybinder.org"},
    }  # fmt: skip


def slug(heading: str) -> str:
    """The anchor that JupyterLab gives a heading, so that links between notebooks hold here, too."""
    return heading.replace(" ", "-")


def readable(text: list[str]) -> list[str]:
    """A docstring of plain text as reStructuredText: indented lines stay as they are, `code` is code."""
    lines, literal = [], False
    for line in text:
        indented = line.startswith("  ") and bool(line.strip())
        if indented and not literal and (not lines or not lines[-1].strip() or not lines[-1].startswith("  ")):
            lines += ["", "::", ""]
        literal = indented or (literal and not line.strip())
        if indented:
            lines.append("  " + line)
        else:
            lines += [""] if lines and lines[-1].startswith("    ") and line.strip() else []
            parts = re.split(r"(`[^`]+`)", line)
            lines.append(
                "".join(f"`{part}`" if part.startswith("`") else re.sub(r"([*|_\\`])", r"\\\1", part) for part in parts)
            )
    return lines


def with_alt(render):
    """MyST-NB writes a file's name where the output's metadata have words for the picture."""

    def rendered(self, data):
        nodes = render(self, data)
        alt = data.output_metadata.get(data.mime_type, {}).get("alt")
        for node in nodes if alt else ():
            node["alt"] = alt
        return nodes

    return rendered


NbElementRenderer.render_image = with_alt(NbElementRenderer.render_image)


def setup(app):
    """Docstrings are plain text."""

    def process(app, what, name, obj, options, lines):
        lines[:] = readable(lines)

    app.connect("autodoc-process-docstring", process)
