"""What the functions of this package take: whole counts, probabilities, positive numbers; ValueError names the rest."""

import operator
from typing import SupportsFloat

import numpy as np
from numpy.typing import ArrayLike


def whole_number(value: object, name: str, least: int = 1, below: int | None = None) -> int:
    """`value` as an int: a whole number of any kind (NumPy's, a tensor's, 1e4). ValueError with its name otherwise."""
    limits = f"a whole number >= {least}" + (f" and below {below}" if below else "")
    try:
        number = operator.index(value) if not isinstance(value, float) else None  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None and _is_number(value) and float(value).is_integer():  # type: ignore[arg-type]
        number = int(float(value))  # type: ignore[arg-type]
    if number is None or _is_bool(value) or number < least or (below is not None and number >= below):
        raise ValueError(f"{name} must be {limits}; got {value!r:.80}")
    return number


def real_number(value: object, name: str, example: object = 0.25) -> float:
    """`value` as a float: one number of any kind, or its text. ValueError with its name for True, a list, an array."""
    try:
        if isinstance(value, str) or _is_number(value):
            return float(value)  # type: ignore[arg-type]
    except ValueError:  # another text
        pass
    raise ValueError(f"{name} must be a number such as {example}; got {value!r:.80}")


def _is_bool(value: object) -> bool:
    return isinstance(value, (bool, np.bool_)) or "bool" in str(getattr(value, "dtype", ""))


def _is_number(value: object) -> bool:
    """One number: not True, no text, and of arrays only those without a dimension."""
    alone = not getattr(value, "ndim", 0)
    return isinstance(value, SupportsFloat) and not isinstance(value, (str, bytes)) and alone and not _is_bool(value)


def numbers(value: ArrayLike, name: str) -> np.ndarray:
    """`value` as an array of floats. ValueError with its name where it holds something else, or True."""
    try:
        array = np.asarray(value)
        if array.dtype.kind in "iuf":
            return array.astype(float)
        if array.dtype.kind == "O":
            return np.vectorize(lambda one: real_number(one, name), otypes=[float])(array)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name} must be a number or an array of numbers; got {value!r:.80}")


def checked_counts(k: ArrayLike, n: ArrayLike, alpha: ArrayLike, name: str) -> tuple[np.ndarray, ...]:
    k, n, alpha = checked_whole(k, name), checked_whole(n, "n"), checked_open_unit(alpha, "alpha")
    if (n < 1).any():
        raise ValueError(f"n must be at least 1; got {first_of(n, n < 1)}")
    k, n, alpha = np.broadcast_arrays(k, n, alpha)
    if (k > n).any():
        raise ValueError(f"{name} must not exceed n; got {name} = {first_of(k, k > n)} of n = {first_of(n, k > n)}")
    return k, n, alpha


def checked_whole(value: ArrayLike, name: str) -> np.ndarray:
    value = numbers(value, name)
    bad = ~((value >= 0) & (value == np.floor(value)) & np.isfinite(value))
    if bad.any():
        raise ValueError(f"{name} must be a whole number >= 0; got {first_of(value, bad)}")
    return value


def checked_open_unit(value: ArrayLike, name: str) -> np.ndarray:
    value = numbers(value, name)
    bad = ~((value > 0) & (value < 1))
    if bad.any():
        raise ValueError(f"{name} must lie strictly between 0 and 1; got {first_of(value, bad)}")
    return value


def checked_probability(value: ArrayLike, name: str) -> np.ndarray:
    value = numbers(value, name)
    bad = ~((value >= 0) & (value <= 1))
    if bad.any():
        raise ValueError(f"{name} must lie in [0, 1]; got {first_of(value, bad)}")
    return value


def checked_positive(value: ArrayLike, name: str) -> np.ndarray:
    value = numbers(value, name)
    bad = ~((value > 0) & np.isfinite(value))
    if bad.any():
        raise ValueError(f"{name} must be positive and finite; got {first_of(value, bad)}")
    return value


def first_of(value: np.ndarray, where: np.ndarray) -> float:
    return float(np.broadcast_to(value, np.shape(where))[where].flat[0])
