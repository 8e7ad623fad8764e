"""The browser that prints and photographs pages, where one is installed."""

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def browser_path() -> str | None:
    """The one that $KIT_BROWSER names, else the system's Chromium or Chrome; None where there is none."""
    return os.environ.get("KIT_BROWSER") or next((found for name in NAMES if (found := shutil.which(name))), None)
