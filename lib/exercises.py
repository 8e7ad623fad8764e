"""What notebooks say of an answer (right, or not yet) and of a claim (seen here, or not); neither stops a run."""

import numpy as np


def check(answer: object, truth: object, *, rtol: float = 5e-3) -> str:
    """A line for the reader: not answered yet (None or ...), right, or not yet. It never says what the truth is.

    `truth`: a number, or an array of numbers. Where it is of floats, three significant digits are enough: within
    `rtol`, relative. A whole number (int) has to be exact, but may come as a float. A single number may come in an
    array, a list or a tensor. Whatever else the answer is, the line says what it is: no answer raises an error.
    """
    if answer is None or answer is ...:
        return "Not answered yet: replace the ... above and run the cell again."
    expected, whole = _as_floats(truth), _as_array(truth).dtype.kind in "iu"
    try:
        given = _as_floats(answer)
    except Exception as error:  # a reader may write anything
        return f"Not yet: {error if type(error) is NotANumber else f'a {type(answer).__name__} is no number.'}"
    if given.size == expected.size == 1:
        given = given.reshape(expected.shape)
    if given.shape != expected.shape:
        return f"Not yet: {_shape(expected)} is asked for, this is {_shape(given)}."
    if np.isnan(given).any():
        return "Not yet: nan is what an undefined operation gives, such as 0 / 0 or the logarithm of -1."
    if np.allclose(given, expected, rtol=0 if whole else rtol, atol=0):
        return "Right."
    return f"Not yet: {f'{given.item():.12g}' if given.size == 1 else 'this array'} is not it."


def observe(claim: str, holds: object) -> str:
    """A line that says whether a claim about results holds in this run. Nothing that is observed is an error.

    `holds`: a truth value, or several (list, array, column, tensor); none of them where nothing can be compared.
    """
    cases = _as_array(holds).ravel().astype(bool)
    if not cases.size:
        return f"nothing to compare here: {claim}"
    if 0 < cases.sum() < cases.size:
        return f"seen here in {cases.sum()} of {cases.size} cases: {claim}"
    return f"{'seen' if cases.all() else 'not seen'} here: {claim}"


class NotANumber(ValueError):
    """An answer of another kind; the message is the sentence for the reader."""


def _as_array(values: object) -> np.ndarray:
    """`tolist` takes tensors of every type and device, and columns of a table."""
    return np.asarray(values.tolist() if hasattr(values, "tolist") else values)


def _as_floats(values: object) -> np.ndarray:
    array = _as_array(values)
    if array.dtype.kind in "US":
        raise NotANumber(f"{str(values)[:40]!r} is text: write the number without quotes.")
    if array.dtype.kind == "b":
        raise NotANumber(f"{str(values)[:40]} is a truth value, and a number is asked for.")
    if array.dtype.kind == "c":
        raise NotANumber(f"{str(values)[:40]} is a complex number, and a real one is asked for.")
    return array.astype(float)


def _shape(array: np.ndarray) -> str:
    return "one number" if array.ndim == 0 else f"an array of shape {array.shape}"
