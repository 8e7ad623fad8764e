"""The same votes at another alpha, or projected to another number of samples."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd

from lib.bounds import anytime_radius, radius_from_counts
from lib.records.row import ABSTAIN


def recount(log: pd.DataFrame, *, n: int | None = None, alpha: float | None = None) -> pd.DataFrame:
    """The log that the same votes give at another alpha, or, projected, at another n.

    Another alpha is exact: the record keeps the counts. Another n is what the paper draws in its Figure 8 (its appendix
    J.2 says so): n_a is scaled to n_a * n / n_old as if the observed share were the true one, and nothing is sampled.
    Votes that a stopping rule collected are counted again by the bound that is valid for them. ValueError where the
    radii come from no bound that is known here.
    """
    bound, two_class = _bound_behind(log)
    n_a, n_b, n_new = log["n_a"], log["n_b"], log["n"]
    if n is not None:
        n_a, n_b, n_new = np.floor(n_a * n / log["n"]), np.ceil(n_b * n / log["n"]), n
    level = log["alpha"] if alpha is None else alpha
    radius = bound(n_a, n_new, log["sigma"], level, n_b=n_b if two_class else None)
    predict = log["selected"].where(radius > 0, ABSTAIN)
    return log.assign(predict=predict, radius=radius, correct=predict == log["label"], n=n_new, n_a=n_a, n_b=n_b)


def _bound_behind(log: pd.DataFrame) -> tuple[Callable[..., np.ndarray], bool]:
    """The function of (n_a, n, sigma, alpha) that gives the radii of `log`, and whether it needs n_b: its rows say it.

    Where no image is certified all fit; the anytime bound is valid for a fixed n too.
    """
    for bound, two_class in product((anytime_radius, radius_from_counts), (False, True)):
        n_b = log["n_b"] if two_class else None
        difference = bound(log["n_a"], log["n"], log["sigma"], log["alpha"], n_b=n_b) - log["radius"]
        wrong = difference.abs() > 2e-6  # the record keeps 6 decimals, rounded down
        if not wrong.any():
            return bound, two_class
    row = log[wrong].iloc[0]
    raise ValueError(
        f"log must come from CERTIFY at its alpha, with fixed n or a stopping rule; got radius {row['radius']} "
        f"for {row['n_a']} of {row['n']} votes at alpha {row['alpha']} (image {row['idx']})"
    )
