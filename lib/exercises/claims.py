"""What a notebook says of a claim about its results: seen in this run, or not. Nothing that is observed is an error."""

import numpy as np


def observe(claim: str, holds: object) -> str:
    """A line that says whether a claim about results holds in this run.

    `holds`: a truth value, or several (list, array, column, tensor); none of them where nothing can be compared.
    """
    cases = np.asarray(holds.tolist() if hasattr(holds, "tolist") else holds).ravel().astype(bool)
    if not cases.size:
        return f"nothing to compare here: {claim}"
    if 0 < cases.sum() < cases.size:
        return f"seen here in {cases.sum()} of {cases.size} cases: {claim}"
    return f"{'seen' if cases.all() else 'not seen'} here: {claim}"
