"""What the functions of this package take: whole counts, probabilities, positive numbers; ValueError names the rest."""

import operator
from typing import SupportsFloat

import numpy as np
from numpy.typing import ArrayLike


def whole_number(value: object, name: str, least: int = 1, below: int | None = None) -> int:
    """`value` as an int: a whole number of any kind (NumPy's, a tensor's, 1e4). ValueError with its name otherwise."""
    limits = f"a whole number >= {least}" + (f" and below {below}" if below else "")
    try:
        number = operator.index(value) if not isinstance(value, (bool, np.bool_, float)) else None  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None and isinstance(value, SupportsFloat) and not isinstance(value, (bool, np.bool_, str)):
        number = int(float(value)) if float(value).is_integer() else None
    if number is None or number < least or (below is not None and number >= below):
        raise ValueError(f"{name} must be {limits}; got {value!r:.80}")
    return number


def checked_counts(k: ArrayLike, n: ArrayLike, alpha: ArrayLike, name: str) -> tuple[np.ndarray, ...]:
    k, n, alpha = checked_whole(k, name), checked_whole(n, "n"), checked_open_unit(alpha, "alpha")
    if (n < 1).any():
        raise ValueError(f"n must be at least 1; got {first_of(n, n < 1)}")
    k, n, alpha = np.broadcast_arrays(k, n, alpha)
    if (k > n).any():
        raise ValueError(f"{name} must not exceed n; got {name} = {first_of(k, k > n)} of n = {first_of(n, k > n)}")
    return k, n, alpha


def checked_whole(value: ArrayLike, name: str) -> np.ndarray:
    value = np.asarray(value, float)
    bad = ~((value >= 0) & (value == np.floor(value)) & np.isfinite(value))
    if bad.any():
        raise ValueError(f"{name} must be a whole number >= 0; got {first_of(value, bad)}")
    return value


def checked_open_unit(value: ArrayLike, name: str) -> np.ndarray:
    value = np.asarray(value, float)
    bad = ~((value > 0) & (value < 1))
    if bad.any():
        raise ValueError(f"{name} must lie strictly between 0 and 1; got {first_of(value, bad)}")
    return value


def checked_probability(value: ArrayLike, name: str) -> np.ndarray:
    value = np.asarray(value, float)
    bad = ~((value >= 0) & (value <= 1))
    if bad.any():
        raise ValueError(f"{name} must lie in [0, 1]; got {first_of(value, bad)}")
    return value


def checked_positive(value: ArrayLike, name: str) -> np.ndarray:
    value = np.asarray(value, float)
    bad = ~((value > 0) & np.isfinite(value))
    if bad.any():
        raise ValueError(f"{name} must be positive and finite; got {first_of(value, bad)}")
    return value


def first_of(value: np.ndarray, where: np.ndarray) -> float:
    return float(np.broadcast_to(value, np.shape(where))[where].flat[0])
