"""Numbers as readers write them (int, float, list, array, tensor, column) and whether two of them agree."""

import numpy as np


class NotANumber(ValueError):
    """An answer of another kind; the message is the sentence for the reader."""


def difference(answer: object, truth: object, rtol: float) -> str:
    """What is wrong with `answer`: a sentence about its value or its kind, or "" where it is `truth`.

    Floats have to agree within `rtol`, relative (in an array, a millionth of its largest value may be added); whole
    numbers exactly, but they may come as floats. A single number may come in an array, a list or a tensor. A tuple is
    compared part by part. The sentence never says what the truth is, and no answer raises an error.
    """
    if isinstance(truth, tuple):
        return _difference_of_parts(answer, truth, rtol)
    expected, whole = as_floats(truth, truths=True), _as_array(truth).dtype.kind in "iub"
    try:
        given = as_floats(answer, truths=_as_array(truth).dtype.kind == "b")
    except Exception as error:  # a reader may write anything
        return str(error) if type(error) is NotANumber else f"a {type(answer).__name__} is no number."
    if given.size == expected.size == 1:
        given = given.reshape(expected.shape)
    if given.shape != expected.shape:
        return f"{_shape(expected)} is asked for, this is {_shape(given)}."
    if np.isnan(given).any():
        return "nan is what an undefined operation gives, such as 0 / 0 or the logarithm of -1."
    near_zero = 1e-6 * np.abs(expected).max(initial=0) if expected.size > 1 else 0
    if np.allclose(given, expected, rtol=0 if whole else rtol, atol=0 if whole else near_zero):
        return ""
    return f"{f'{given.item():.12g}' if given.size == 1 else 'this array'} is not it."


def _difference_of_parts(answer: object, truth: tuple[object, ...], rtol: float) -> str:
    asked = f"{len(truth)} values are asked for"
    if not isinstance(answer, (tuple, list)):
        return f"{asked}, in a tuple; this is a {type(answer).__name__}."
    if len(answer) != len(truth):
        return f"{asked}, these are {len(answer)}."
    for i, (mine, right) in enumerate(zip(answer, truth, strict=True), 1):
        if said := difference(mine, right, rtol):
            return f"of the {len(truth)} values, number {i}: {said}"
    return ""


def _as_array(values: object) -> np.ndarray:
    """`tolist` takes tensors of every type and device, and columns of a table."""
    return np.asarray(values.tolist() if hasattr(values, "tolist") else values)


def as_floats(values: object, truths: bool = False) -> np.ndarray:
    """The values as an array of floats. NotANumber for text, complex numbers and, without `truths`, truth values."""
    array = _as_array(values)
    if array.dtype.kind in "US":
        raise NotANumber(f"{str(values)[:40]!r} is text: write the number without quotes.")
    if array.dtype.kind == "b" and not truths:
        raise NotANumber(f"{str(values)[:40]} is a truth value, and a number is asked for.")
    if array.dtype.kind == "c":
        raise NotANumber(f"{str(values)[:40]} is a complex number, and a real one is asked for.")
    return array.astype(float)


def _shape(array: np.ndarray) -> str:
    return "one number" if array.ndim == 0 else f"an array of shape {array.shape}"
