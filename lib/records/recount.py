"""From the counts of a record to radii again: at another alpha, by another bound, or projected to another n."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from lib.bounds import ABSTAIN, Bound
from lib.bounds.arguments import whole_number
from lib.records.row import Row
from lib.sampling import Noise

_NEEDED = ("n_a", "n_b", "n", "sigma", "alpha", "selected", "noise", "bound")


def recount(
    log: pd.DataFrame, *, n: int | None = None, alpha: float | None = None, bound: Bound | None = None
) -> pd.DataFrame:
    """The log that the same votes give at another alpha, by another bound, or, projected, at another n.

    Another alpha or bound is exact: the record keeps the counts, and names its noise and its bound. (Chosen before one
    looks, that is: the smallest alpha that still certifies is no level.) Votes that a stopping rule collected take an
    anytime bound only. Another n is what the paper draws in its Figure 8 (appendix J.2 says so): n_a is scaled to
    n_a * n / n_old as if the observed share were the true one, and nothing is sampled. ValueError for a log without
    counts (a paper's: see `recertify`), without the names, or for a bound that its votes do not allow.
    """
    missing = [name for name in _NEEDED if name not in log]
    if missing:
        advice = "a paper's log takes recertify" if "n_a" in missing else "make the record again with this version"
        raise ValueError(f"log has no column {missing[0]}, so its counts cannot be bounded again: {advice}")
    if bound is not None and not isinstance(bound, Bound):
        raise ValueError(f"bound = {bound!r:.80}: expected a Bound, such as Bound.named('clopper-pearson, two-class')")
    n_a, n_b, n_new = log["n_a"], log["n_b"], log["n"]
    if n is not None:
        n = whole_number(n, "n")
        n_a, n_b, n_new = np.floor(n_a * n / log["n"]), np.ceil(n_b * n / log["n"]), n
    changed = log.assign(n=n_new, n_a=n_a, n_b=n_b, alpha=log["alpha"] if alpha is None else alpha)
    if bound is not None:
        looked_at = [name for name in log["bound"].unique() if Bound.named(name).anytime and not bound.anytime]
        if looked_at:
            raise ValueError(
                f"bound = {bound.name!r} needs a fixed n, and the votes of this log ({looked_at[0]}) had none"
            )
        changed["bound"] = bound.name
    radius = radii_of(changed)
    predict = log["selected"].where(radius > 0, ABSTAIN)
    return changed.assign(predict=predict, radius=radius, correct=(predict == log["label"]) & (radius > 0))


def radii_of(log: pd.DataFrame) -> pd.Series:
    """The radius of each row, by its noise and its bound, from its counts; 0 where nothing is certified."""
    radius = pd.Series(0.0, log.index)
    for (noise, sigma, bound), rows in log.groupby(["noise", "sigma", "bound"]):
        n_a, n_b, n, alpha = (rows[name].to_numpy() for name in ("n_a", "n_b", "n", "alpha"))
        radius[rows.index] = Bound.named(bound).radius(n_a, n_b, n, alpha, Noise.named(noise, sigma))
    return radius


def wrong_radius(rows: Iterable[Row]) -> Row | None:
    """The first row whose radius or answer its own counts do not give. (A record keeps 6 decimals, rounded down.)"""
    rows = list(rows)
    log = pd.DataFrame([vars(row) for row in rows])
    if log.empty:
        return None
    exact = radii_of(log)
    far = (log["radius"] > exact + 1e-9) | (log["radius"] < exact - 2e-6)
    wrong = np.flatnonzero(far | (log["predict"] != log["selected"].where(exact > 0, ABSTAIN)))
    return rows[wrong[0]] if len(wrong) else None
