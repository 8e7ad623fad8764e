"""The exercises of notebook 04: the losses of the training methods, and what the average certified radius rewards."""

import numpy as np
from scipy import stats

from lib.exercises.exercise import Exercise


def answers() -> list[tuple[np.ndarray]]:
    """Softmax outputs of the copies of one image, (m, K): each row sums to 1."""
    draws = np.random.default_rng(4)
    return [(draws.dirichlet(np.ones(classes), copies),) for copies, classes in ((2, 3), (4, 10), (1, 5), (3, 2))]


def consistency(p: np.ndarray) -> float:
    """The mean over the copies of KL(mean answer || answer)."""
    mean = p.mean(axis=0)
    return float((mean * np.log(mean / p)).sum(axis=1).mean())


def smoothadv(p: np.ndarray) -> float:
    """Minus the logarithm of the mean probability of class 0."""
    return float(-np.log(p[:, 0].mean()))


def constant_acr(sigma: float = 0.5, n: int = 1000, alpha: float = 0.001, share: float = 0.1) -> float:
    """What a classifier that always says one class scores where `share` of the images belong to it."""
    return float(share * sigma * stats.norm.ppf(alpha ** (1 / n)))


EXERCISES: list[Exercise] = [
    Exercise(
        name="04.smoothadv",
        minutes=5,
        difficulty="easy",
        truth=smoothadv,
        cases=answers,
        mistakes={
            "This is the mean of the logarithms, as in (1); the loss of g is the logarithm of the mean.": (
                lambda p: float(-np.log(p[:, 0]).mean())
            ),
            "The sign is turned: a loss is at least 0.": lambda p: float(np.log(p[:, 0].mean())),
            "This is the probability; the loss is minus its logarithm.": lambda p: float(p[:, 0].mean()),
            "This is the logarithm of the sum of the copies; divide by their number first.": (
                lambda p: float(-np.log(p[:, 0].sum()))
            ),
            "This averages over the classes: p[:, 0] is the label's column.": lambda p: float(-np.log(p[0].mean())),
            "This is the logarithm to base 10; take the natural one.": lambda p: float(-np.log10(p[:, 0].mean())),
        },
    ),
    Exercise(
        name="04.consistency",
        minutes=10,
        difficulty="medium",
        truth=consistency,
        cases=answers,
        mistakes={
            "The two are swapped: this is KL(answer || mean).": (
                lambda p: float((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean())
            ),
            "This is the sum over the copies; take their mean.": lambda p: len(p) * consistency(p),
            "This is one value for each copy; take their mean.": (
                lambda p: (p.mean(axis=0) * np.log(p.mean(axis=0) / p)).sum(axis=1)
            ),
            "This averages over the classes; KL is a sum over them.": lambda p: consistency(p) / p.shape[1],
            "The sign is turned: KL is at least 0.": lambda p: -consistency(p),
            "This adds the entropy of the mean answer, the cross-entropy; the entropy is another term.": (
                lambda p: float(-(p.mean(axis=0) * np.log(p)).sum(axis=1).mean())
            ),
        },
    ),
    Exercise(
        name="04.constant",
        minutes=10,
        difficulty="medium",
        truth=constant_acr,
        mistakes={
            "This is the radius of one image; nine in ten have the wrong label and count 0.": (
                lambda: constant_acr(share=1.0)
            ),
            "σ is missing: the radius is σ times the quantile.": lambda: constant_acr(sigma=1.0),
            "This takes 1 - α for the bound; of n equal votes it is α to the power 1 / n.": lambda: float(
                0.1 * 0.5 * stats.norm.ppf(1 - 0.001)
            ),
            "This is for 10,000 votes; here there are 1,000.": lambda: constant_acr(n=10_000),
            "This counts the nine tenths that are wrong.": lambda: constant_acr(share=0.9),
            "This splits α over two sides; the bound is one-sided.": lambda: constant_acr(alpha=0.0005),
        },
    ),
]
