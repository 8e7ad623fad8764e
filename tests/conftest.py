"""Fixtures that several test files share."""

import pytest
from tiny_notebook import Tiny

from lib.config import NOTEBOOKS


@pytest.fixture(scope="module")
def tiny_is_known():
    """lib.config knows tiny.ipynb, as it knows the notebooks of the kit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NOTEBOOKS, "tiny", Tiny)
        yield
