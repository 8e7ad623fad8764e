"""From counts to certified radii."""

import numpy as np

from lib.bounds.binomial import lower_confidence_bound, upper_confidence_bound
from lib.bounds.radii import certified_radius

ABSTAIN = -1


def radius_from_counts(
    n_a: np.ndarray, n: int, sigma: float, alpha: float, n_b: np.ndarray | None = None
) -> np.ndarray:
    """The certified radius that n_a votes of n support at level alpha, 0 for none; with `n_b`, by the two-class bound.

    Without `n_b` all other mass counts as one class: sigma Phi^-1(lower(n_a)). With it, the runner-up is bounded too at
    alpha / 2. No union over classes is needed: the true runner-up is one fixed class, its count is at most n_b, and
    the upper bound grows with the count. The class of n_a must come from other samples.
    """
    if n_b is None:
        return certified_radius(lower_confidence_bound(n_a, n, alpha), sigma)
    p_a, p_b = lower_confidence_bound(n_a, n, alpha / 2), upper_confidence_bound(n_b, n, alpha / 2)
    return certified_radius(p_a, sigma, p_b)
