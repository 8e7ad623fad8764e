"""The exercises of notebook 06: how far a budget reaches, what a radius costs, and how to blend."""

import math

import torch
from scipy import stats

from lib.bounds import least_votes
from lib.exercises.exercise import Exercise


def cliff(n: int = 1000, alpha: float = 0.001, sigma: float = 0.25) -> float:
    """The radius of n votes that all agree."""
    return float(sigma * stats.norm.ppf(alpha ** (1 / n)))


def blend(denoised: torch.Tensor, noisy: torch.Tensor, share: float) -> torch.Tensor:
    """What goes to the classifier."""
    return (1 - share) * denoised + share * noisy


EXERCISES: list[Exercise] = [
    Exercise(
        name="06.cliff",
        minutes=5,
        difficulty="easy",
        truth=cliff,
        mistakes={
            "This is Φ⁻¹ of the bound; the radius is σ times that.": lambda: cliff(sigma=1.0),
            "This takes 1 - α for the bound; that of 1,000 agreeing votes is α to the power 1/1000.": (
                lambda: float(0.25 * stats.norm.ppf(0.999))
            ),
            "This is the bound on the probability itself, without Φ⁻¹.": lambda: 0.001 ** (1 / 1000),
            "This is the radius of the paper's 100 votes; here a thousand agree.": lambda: cliff(n=100),
            "This takes α / 2; the bound has one side.": lambda: cliff(alpha=0.0005),
        },
    ),
    Exercise(
        name="06.queries",
        minutes=10,
        difficulty="medium",
        truth=least_votes,
        cases=[(0.1, 0.25, 0.001), (0.25, 0.25, 0.001), (0.5, 0.5, 0.01), (1.0, 0.5, 0.001), (0.1, 0.5, 0.05)],
        mistakes={
            "Rounded down: the last query is needed, too.": lambda r, s, a: math.floor(
                math.log(a) / math.log(stats.norm.cdf(r / s))
            ),
            "This gives no whole number; round up.": lambda r, s, a: math.log(a) / math.log(stats.norm.cdf(r / s)),
            "This forgets σ: Φ takes r / σ.": lambda r, s, a: math.ceil(math.log(a) / math.log(stats.norm.cdf(r))),
            "This multiplies r by σ; divide.": lambda r, s, a: math.ceil(math.log(a) / math.log(stats.norm.cdf(r * s))),
            "The sign is turned: both logarithms are negative, their quotient is not.": lambda r, s, a: math.ceil(
                -math.log(a) / math.log(stats.norm.cdf(r / s))
            ),
        },
    ),
    Exercise(
        name="06.blend",
        minutes=5,
        difficulty="easy",
        truth=blend,
        cases=[
            (torch.tensor([0.2, 0.8]), torch.tensor([0.5, 0.1]), 0.25),
            (torch.tensor([1.0, 0.0]), torch.tensor([1.6, -0.4]), 0.1),
        ],
        mistakes={
            "The shares are changed over: `share` belongs to the noisy picture.": lambda d, x, s: s * d + (1 - s) * x,
            "The noisy picture comes on top; the two shares must add up to 1.": lambda d, x, s: d + s * x,
            "This clips to [0, 1]; the classifier gets the blend as it is.": lambda d, x, s: blend(d, x, s).clamp(0, 1),
            "This is half and half, whatever `share` says.": lambda d, x, s: (d + x) / 2,
        },
    ),
]
