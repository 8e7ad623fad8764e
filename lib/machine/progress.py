"""One policy for progress reports, so that no loop decides by itself: KIT_PROGRESS=bar, log or off.

bar  one line that replaces itself, for people (the default): in a notebook it goes away at the end of its cell
log  a line every 10 %, for files and executed notebooks, where a bar would leave thousands
off  nothing, for tests and committed notebooks
"""

from __future__ import annotations

import html
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from tqdm.std import TqdmWarning, tqdm  # the text bar: widgets of tqdm.auto would be stored in the notebook

# Libraries that import tqdm.auto, as diffusers does, would ask for the widgets in the notebook's first output.
warnings.filterwarnings("ignore", "IProgress not found", TqdmWarning)

INTERVAL = 0.2  # seconds between two pictures of a bar


def progress(total: int, label: str) -> Callable[[int], None]:
    """A function to call with the number of steps done so far, out of `total`.

    Reports go to stderr, a notebook's bar to the cell. ValueError where KIT_PROGRESS is none of bar, log, off.
    """
    policies = {"bar": cell_bar if notebook() else bar, "log": log, "off": off}
    policy = os.environ.get("KIT_PROGRESS") or "bar"
    if policy not in policies:
        raise ValueError(f"KIT_PROGRESS = {policy!r}: expected one of {', '.join(policies)}")
    return policies[policy](total, label)


def notebook() -> Any:
    """The shell of the kernel that this runs in, or None outside of one."""
    ipython = sys.modules.get("IPython")  # a notebook has imported it
    shell = ipython.get_ipython() if ipython else None
    return shell if hasattr(shell, "kernel") else None


def cell_bar(total: int, label: str) -> Callable[[int], None]:
    """A bar in the output of the running cell, which comes with the first report and goes when the cell ends.

    It goes at `total`, and after an interrupt or an error, too. JupyterLab gives each state of a text bar a line of its
    own, on red ground.
    """
    from IPython.display import display

    shell, handle, shown_at, began = notebook(), None, 0.0, (0.0, 0)

    def remove(*_: object) -> None:
        nonlocal handle
        if handle is not None:
            handle.update({}, raw=True)
            handle = None
            shell.events.unregister("post_run_cell", remove)

    def report(done: int) -> None:
        nonlocal handle, shown_at, began
        now = time.monotonic()
        if done >= total:
            remove()
        elif handle is None:
            shown_at, began = now, (now, done)
            handle = display(_bar_html(done, total, label), raw=True, display_id=True)
            shell.events.register("post_run_cell", remove)
        elif now >= shown_at + INTERVAL:
            shown_at, pace = now, (now - began[0]) / max(done - began[1], 1)
            handle.update(_bar_html(done, total, label, pace * (total - done)), raw=True)

    return report


def _bar_html(done: int, total: int, label: str, left: float | None = None) -> dict[str, str]:
    """The bar as an output of a cell. `left`: seconds, where they are known."""
    time_left = "" if left is None else f", {int(left) // 60}:{int(left) % 60:02d} left"
    words = f"{html.escape(label)}: {done:,} of {total:,}{time_left}"
    bar = f'<progress value="{done}" max="{total}" style="width:14em"></progress> {words}'
    return {"text/html": bar, "text/plain": words}


def bar(total: int, label: str) -> Callable[[int], None]:
    """A text bar that comes with the first report and closes itself when `total` is reached.

    Without a report there is none: what was found on the disk would leave it at 0 % for ever.
    """
    started, display = time.time(), None

    def report(done: int) -> None:
        nonlocal display
        if display is None:
            display = tqdm(total=total, desc=label, file=sys.stderr, mininterval=INTERVAL)
            display.start_t = started
        display.update(done - display.n)
        if done >= total:
            display.close()

    return report


def log(total: int, label: str) -> Callable[[int], None]:
    """A line whenever another tenth of `total` is done."""
    tenths = 0

    def report(done: int) -> None:
        nonlocal tenths
        reached = 10 * done // max(total, 1)
        if reached > tenths:
            tenths = reached
            print(f"{label}: {10 * reached} % ({done}/{total})", file=sys.stderr, flush=True)

    return report


def off(total: int, label: str) -> Callable[[int], None]:
    """Nothing."""
    return lambda done: None
