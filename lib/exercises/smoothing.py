"""The exercises of notebook 01: what is right, and the mistakes that people make, each with its sentence."""

import numpy as np
from scipy import stats

from lib.bounds import ABSTAIN, certified_radius, lower_confidence_bound, predict_pvalue, upper_confidence_bound
from lib.exercises.exercise import Exercise

LEVEL = 0.001


def predict(votes: np.ndarray, alpha: float) -> int:
    """PREDICT from the counts of each class (K,): the class that g answers, or -1."""
    n_b, n_a = np.sort(votes)[-2:]
    return int(np.argmax(votes)) if predict_pvalue(n_a, n_b) <= alpha else ABSTAIN


def certify(first: np.ndarray, fresh: np.ndarray, sigma: float, alpha: float) -> tuple[int, float]:
    """CERTIFY from two sets of counts of each class (K,): the class and its radius, or -1 and 0."""
    winner = int(np.argmax(first))
    return _answer(winner, lower_confidence_bound(fresh[winner], fresh.sum(), alpha), sigma)


def _answer(winner: int, p_a: float, sigma: float) -> tuple[int, float]:
    return (winner, float(certified_radius(p_a, sigma))) if p_a > 0.5 else (ABSTAIN, 0.0)


def _tested(votes: np.ndarray, alpha: float, of: int, alternative: str = "two-sided") -> int:
    """PREDICT with another test of the most votes: among `of`, or one-sided."""
    pvalue = stats.binomtest(int(votes.max()), int(of), 0.5, alternative).pvalue
    return int(votes.argmax()) if pvalue <= alpha else ABSTAIN


def _of_two(votes: np.ndarray) -> int:
    return int(np.sort(votes)[-2:].sum())


def _unsafe(first: np.ndarray, fresh: np.ndarray, sigma: float, alpha: float) -> tuple[int, float]:
    """CERTIFY that never abstains."""
    winner = int(np.argmax(first))
    p_a = lower_confidence_bound(fresh[winner], fresh.sum(), alpha)
    return winner, float(sigma * stats.norm.ppf(p_a))


def _certify(first: np.ndarray, k: float, n: float, sigma: float, alpha: float, one: int = 1) -> tuple[int, float]:
    """CERTIFY for k of n votes, whatever they are; nan, which is not above one half, where no bound is defined."""
    return _answer(int(first.argmax()), float(stats.beta.ppf(alpha, k, n - k + one)), sigma)


def _by_share(first: np.ndarray, fresh: np.ndarray, sigma: float, alpha: float) -> tuple[int, float]:
    winner = int(np.argmax(first))
    return _answer(winner, fresh[winner] / fresh.sum(), sigma)


def _two_class(level_a: float, level_b: float, half: float = 0.5) -> float:
    """The radius of 4,900 and 300 votes of 10,000 at sigma = 1."""
    p_a = lower_confidence_bound(4900, 10_000, level_a)
    p_b = upper_confidence_bound(300, 10_000, level_b)
    return float(half * (stats.norm.ppf(p_a) - stats.norm.ppf(p_b)))


def _votes(*counts: int) -> np.ndarray:
    return np.array(counts)


EXERCISES = [
    Exercise(
        name="01.lower_bound",
        minutes=5,
        difficulty="easy",
        truth=lambda: stats.beta.ppf(LEVEL, 99, 2),
        mistakes={
            "This is the share of the votes; the bound lies below it.": lambda: 0.99,
            "This is the upper bound: ask for the quantile α, not 1 - α.": lambda: stats.beta.ppf(1 - LEVEL, 100, 1),
            "This splits α over two sides; the bound is one-sided, all of α lies below it.": lambda: stats.beta.ppf(
                LEVEL / 2, 99, 2
            ),
            "The second number of the Beta distribution is n - k + 1; here the 1 is missing.": lambda: stats.beta.ppf(
                LEVEL, 99, 1
            ),
            "This is the quantile of another α; here it is 0.001.": lambda: stats.beta.ppf(0.01, 99, 2),
            "The two numbers of the Beta distribution are swapped: k comes first.": lambda: stats.beta.ppf(
                LEVEL, 2, 99
            ),
            "This is the normal approximation, which fails near 1; take the Beta distribution.": lambda: (
                0.99 - stats.norm.ppf(1 - LEVEL) * np.sqrt(0.99 * 0.01 / 100)
            ),
        },
    ),
    Exercise(
        name="01.predict",
        minutes=10,
        difficulty="medium",
        truth=predict,
        cases=[
            (_votes(90, 5, 5), 0.001), (_votes(3, 9, 0), 0.001), (_votes(0, 10, 0), 0.001), (_votes(0, 0, 11), 0.001),
            (_votes(448, 552, 0), 0.001), (_votes(30, 45, 25), 0.2), (_votes(15, 10, 45, 15, 15), 0.001),
            (_votes(2, 0), 0.5),
        ],
        otherwise="return -1 where it abstains.",
        mistakes={
            "It answers even where the vote is close; compare the p-value with α.": lambda votes, alpha: int(
                votes.argmax()
            ),
            "It answers where the p-value is large and abstains where it is small: the other way round.": (
                lambda votes, alpha: -1 if predict(votes, alpha) >= 0 else int(votes.argmax())
            ),
            "The test takes the winner among all votes; it is the winner among the two largest counts.": (
                lambda votes, alpha: _tested(votes, alpha, votes.sum())
            ),
            "It abstains where the p-value is exactly α; PREDICT answers there (<=).": (
                lambda votes, alpha: (
                    int(votes.argmax()) if predict_pvalue(*np.sort(votes)[-2:]) < alpha else ABSTAIN
                )
            ),
            "The test is one-sided; either of the two classes could have won, so it has two sides.": (
                lambda votes, alpha: _tested(votes, alpha, _of_two(votes), "greater")
            ),
            "It returns the number of votes; return the class, the place where that number stands.": (
                lambda votes, alpha: int(votes.max()) if predict(votes, alpha) >= 0 else ABSTAIN
            ),
        },
    ),
    Exercise(
        name="01.certify",
        minutes=10,
        difficulty="medium",
        truth=certify,
        cases=[
            (_votes(0, 10, 0), _votes(5, 990, 5), 0.25, 0.001), (_votes(9, 1, 0), _votes(99, 1, 0), 0.5, 0.001),
            (_votes(1, 1, 8), _votes(30, 30, 40), 0.5, 0.001), (_votes(4, 6, 0), _votes(800, 200, 0), 0.5, 0.001),
            (_votes(0, 0, 10), _votes(0, 0, 100), 1.0, 0.01), (_votes(6, 4, 0), _votes(52, 48, 0), 0.25, 0.001),
        ],
        otherwise="return -1, 0.0 where it abstains.",
        mistakes={
            "The fresh votes choose the class here; the first ones choose, the fresh ones only bound.": (
                lambda first, fresh, sigma, alpha: certify(fresh, fresh, sigma, alpha)
            ),
            "The bound counts the first votes, too; they chose the class, so only fresh ones may count.": (
                lambda first, fresh, sigma, alpha: certify(first, first + fresh, sigma, alpha)
            ),
            "The radius comes from the share of the votes; it needs the lower bound of that share.": _by_share,
            "It answers where the lower bound is at most one half; there CERTIFY abstains: -1, 0.0.": _unsafe,
            "σ is missing: the radius is σ times the quantile.": (
                lambda first, fresh, sigma, alpha: certify(first, fresh, 1.0, alpha)
            ),
            "This splits α over two sides; the bound is one-sided.": (
                lambda first, fresh, sigma, alpha: certify(first, fresh, sigma, alpha / 2)
            ),
            "n is the number of fresh votes, fresh.sum(), not of the first ones, nor of classes.": (
                lambda first, fresh, sigma, alpha: _certify(first, fresh[first.argmax()], first.sum(), sigma, alpha)
            ),
            "The bound is made of the first votes; they chose the class, so only fresh ones may count.": (
                lambda first, fresh, sigma, alpha: certify(first, first, sigma, alpha)
            ),
            "The votes are those of the largest fresh count; take those of the class that the first samples chose.": (
                lambda first, fresh, sigma, alpha: _certify(first, fresh.max(), fresh.sum(), sigma, alpha)
            ),
            "The Beta distribution's second number is n - k + 1; here the 1 is missing.": (
                lambda first, fresh, sigma, alpha: _certify(first, fresh[first.argmax()], fresh.sum(), sigma, alpha, 0)
            ),
            "This is the upper bound: ask for the quantile α, not 1 - α.": (
                lambda first, fresh, sigma, alpha: _certify(first, fresh[first.argmax()], fresh.sum(), sigma, 1 - alpha)
            ),
            "The class comes first, then the radius.": (
                lambda first, fresh, sigma, alpha: certify(first, fresh, sigma, alpha)[::-1]
            ),
            "Where it abstains it returns the class that won; return -1, 0.0 there.": (
                lambda first, fresh, sigma, alpha: (int(first.argmax()), certify(first, fresh, sigma, alpha)[1])
            ),
        },
    ),
    Exercise(
        name="01.runner_up",
        minutes=10,
        difficulty="medium",
        truth=lambda: _two_class(LEVEL / 2, LEVEL / 2),
        mistakes={
            "Both bounds have all of α here, so together they may fail twice as often: give α / 2 to each.": (
                lambda: _two_class(LEVEL, LEVEL)
            ),
            "The factor ½ of Theorem 1 is missing.": lambda: _two_class(LEVEL / 2, LEVEL / 2, half=1.0),
            "These are the shares themselves; each needs its bound.": lambda: (
                0.5 * (stats.norm.ppf(0.49) - stats.norm.ppf(0.03))
            ),
            "This is σ Φ⁻¹ of the lower bound alone, which is negative: the rival's share is missing.": lambda: (
                stats.norm.ppf(stats.beta.ppf(LEVEL, 4900, 5101))
            ),
            "This is σ Φ⁻¹ of the lower bound at α / 2 alone; the rival's share is missing.": lambda: (
                stats.norm.ppf(stats.beta.ppf(LEVEL / 2, 4900, 5101))
            ),
            "For the rival take the upper bound, the quantile 1 - α / 2 of Beta(k + 1, n - k).": lambda: (
                0.5 * (stats.norm.ppf(stats.beta.ppf(LEVEL / 2, 4900, 5101))
                       - stats.norm.ppf(stats.beta.ppf(LEVEL / 2, 300, 9701)))
            ),
        },
        rtol=2e-3,
    ),
    Exercise(
        name="01.samples",
        minutes=10,
        difficulty="easy",
        truth=lambda: int(np.ceil(np.log(LEVEL) / np.log(stats.norm.cdf(4)))),
        mistakes={
            "Rounded down this is one sample too few; round up.": lambda: (
                int(np.log(LEVEL) / np.log(stats.norm.cdf(4)))
            ),
            "Samples are whole: round up.": lambda: float(np.log(LEVEL) / np.log(stats.norm.cdf(4))),
            "This takes ln(1 - α); the unanimous vote has probability pⁿ = α.": lambda: int(
                np.ceil(np.log(1 - LEVEL) / np.log(stats.norm.cdf(4)))
            ),
            "This splits α over two sides; the bound is one-sided.": lambda: int(
                np.ceil(np.log(LEVEL / 2) / np.log(stats.norm.cdf(4)))
            ),
        },
    ),
]  # fmt: skip
