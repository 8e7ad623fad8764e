"""Certificates put together from several: a model that chooses between two others, and one of several noise levels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from lib.bounds.arguments import checked_positive, numbers
from lib.bounds.binomial import lower_confidence_bound, upper_confidence_bound
from lib.bounds.certificate import ABSTAIN


def composed(
    selection: ArrayLike,
    selection_radius: ArrayLike,
    certified: ArrayLike,
    certified_radius: ArrayLike,
    core: ArrayLike,
) -> tuple[np.ndarray, np.ndarray]:
    """(predict, radius) of F(x) = g(x) where a smoothed selection s(x) is 1, and h(x) elsewhere (ACES).

    `selection`: what is known of s, 1, 0 or ABSTAIN, and its radius; `certified`: of g, a class or ABSTAIN, and its
    radius; `core`: the class h(x), which has no certificate. Where s and g were each certified at alpha / 2, all that
    is said of F holds with probability 1 - alpha:
    s = 1: the class of g, in the ball of the smaller radius. s = 0: the class of h, at x alone. s abstains: their
    class where g and h agree, at x alone. Otherwise ABSTAIN. (Horvath et al. 2022. Their evaluation counts
    an abstaining selection as 1 at radius 0; it proves nothing.) The same rule reads PREDICT's answers, with radii 0.
    """
    selection, certified, core = numbers(selection, "selection"), numbers(certified, "certified"), numbers(core, "core")
    agreed = np.where((certified == core) & (selection == ABSTAIN), core, ABSTAIN)
    predict = np.where(selection == 1, certified, np.where(selection == 0, core, agreed))
    radius = np.minimum(selection_radius, certified_radius)
    return predict.astype(np.int64), np.where((selection == 1) & (certified != ABSTAIN), radius, 0.0)


def multiscale(
    sigmas: Sequence[float],
    selected: Sequence[ArrayLike],
    n_a: Sequence[ArrayLike],
    n_b: Sequence[ArrayLike],
    n: int,
    alpha: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(predict, l2 radius) of the classifier that asks the largest noise level at which a class has half the votes.

    G(x) = the class c with P(f_k(x + N(0, sigma_k^2 I)) = c) > 1/2 at the largest sigma_k where there is one (Jeong and
    Shin 2023, cascaded smoothing; p0 = 1/2). Each argument has an entry a level, as in that level's record of a fixed
    n: `selected` the class from the n0 samples, `n_a` and `n_b` the votes for it and the most for any other, (N,).
    Level k answers where its class c is certified, and at every larger level j no other class has half the votes:
    R = min(sigma_k Phi^-1(lower p_kc), min_j -sigma_j Phi^-1(upper p_j,other)). That c itself may have them there does
    no harm. The paper takes an asymptotic interval; here all bounds are Clopper-Pearson's, at alpha over their number,
    K (K + 1) / 2, and the union holds with probability 1 - alpha. Samples that select and samples that count must
    differ within and across levels, as those of one `n0` and `seed` do.
    ValueError unless sigmas are positive and each is below the one before.
    """
    levels = checked_positive(sigmas, "sigmas")
    if not (np.diff(levels) < 0).all():
        raise ValueError(f"sigmas must fall from level to level; got {list(sigmas)}")
    share = alpha / (len(levels) * (len(levels) + 1) / 2)
    classes, first, second = (np.asarray(values) for values in (selected, n_a, n_b))  # (levels, N)
    predict, radius = np.full(classes.shape[1], ABSTAIN), np.zeros(classes.shape[1])
    for k, sigma in enumerate(levels):
        found = sigma * ndtri(lower_confidence_bound(first[k], n, share))
        for j in range(k):
            # the most votes for a class other than c; n_b may be those of c, which is on the safe side
            others = np.where(classes[j] == classes[k], second[j], np.maximum(first[j], second[j]))
            found = np.minimum(found, -levels[j] * ndtri(upper_confidence_bound(others, n, share)))
        answers = (predict == ABSTAIN) & (found > 0)
        predict = np.where(answers, classes[k], predict)
        radius = np.where(answers, found * (1 - 1e-14), radius)
    return predict, radius
