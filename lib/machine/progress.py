"""One policy for progress reports, so that no loop decides by itself: KIT_PROGRESS=bar, log or off.

bar  a text bar, for people in a terminal or JupyterLab (the default)
log  a line every 10 %, for files and executed notebooks, where a bar would leave thousands
off  nothing, for tests and committed notebooks
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable

from tqdm.std import TqdmWarning, tqdm  # the text bar: widgets of tqdm.auto would be stored in the notebook

# Libraries that import tqdm.auto, as diffusers does, would ask for the widgets in the notebook's first output.
warnings.filterwarnings("ignore", "IProgress not found", TqdmWarning)


def progress(total: int, label: str) -> Callable[[int], None]:
    """A function to call with the number of steps done so far, out of `total`. Reports go to stderr.

    ValueError where KIT_PROGRESS is none of bar, log, off.
    """
    policies = {"bar": bar, "log": log, "off": off}
    policy = os.environ.get("KIT_PROGRESS") or "bar"
    if policy not in policies:
        raise ValueError(f"KIT_PROGRESS = {policy!r}: expected one of {', '.join(policies)}")
    return policies[policy](total, label)


def bar(total: int, label: str) -> Callable[[int], None]:
    """A text bar that comes with the first report and closes itself when `total` is reached.

    Without a report there is none: what was found on the disk would leave it at 0 % for ever.
    """
    started, display = time.time(), None

    def report(done: int) -> None:
        nonlocal display
        if display is None:
            display = tqdm(total=total, desc=label, file=sys.stderr, mininterval=0.2)
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
