"""The log of a composition (ACES) from the records of its selection and of its certified model."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from lib.bounds import composed


def composed_log(selection: pd.DataFrame, certified: pd.DataFrame, core: Iterable[int]) -> pd.DataFrame:
    """What is certified of F(x) = g(x) where s(x) = 1, else h(x): `lib.bounds.composed` for whole logs.

    `selection`, `certified`: the records of s and g, of the same images in the same order; `core`: the classes h(x) of
    the accurate model, one a row. Columns of the result: idx, label, predict, radius, correct, and alpha, the sum of
    theirs. An answer at x alone has radius 0, and is correct where it is the label. ValueError for other images.
    """
    core = np.asarray(list(core))
    if not selection["idx"].reset_index(drop=True).equals(certified["idx"].reset_index(drop=True)):
        raise ValueError("selection and certified must be records of the same images, in the same order")
    if core.shape != (len(certified),):
        raise ValueError(f"core must be the class of each of the {len(certified)} images; got {core.shape}")
    said = (log[name].to_numpy() for log in (selection, certified) for name in ("predict", "radius"))
    s, s_radius, g, g_radius = said
    predict, radius = composed(s, s_radius, g, g_radius, core)
    alpha = selection["alpha"].to_numpy() + certified["alpha"].to_numpy()
    log = certified[["idx", "label"]].assign(predict=predict, radius=radius, correct=predict == certified["label"])
    return log.assign(alpha=alpha)
