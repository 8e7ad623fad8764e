"""The exercises of notebook 05: another norm, another noise, and two noise levels at once."""

import numpy as np
from scipy import stats

from lib.exercises.exercise import Exercise


def linf(radius: float = 0.75, pixels: int = 3 * 32 * 32) -> float:
    """The l_inf radius, in steps of 1 / 255, inside an l2 ball."""
    return 255 * radius / float(np.sqrt(pixels))


def laplace(p: float, scale: float) -> float:
    """The l1 radius of Laplace noise without a bound on the runner-up."""
    return float(-scale * np.log(2 * (1 - p)))


def two_levels(p_small: float = 0.95, others_large: float = 0.3) -> float:
    """What the smaller of two levels, 0.25 and 0.5, certifies where the larger one does not answer."""
    return float(min(0.25 * stats.norm.ppf(p_small), -0.5 * stats.norm.ppf(others_large)))


EXERCISES: list[Exercise] = [
    Exercise(
        name="05.linf",
        minutes=5,
        difficulty="easy",
        truth=linf,
        mistakes={
            "This is in pixels of [0, 1]; multiply by 255.": lambda: linf() / 255,
            "An image has three colours: 3 · 32 · 32 numbers.": lambda: linf(pixels=32 * 32),
            "This multiplies by the root; the ball inside is smaller.": lambda: 0.75 * float(np.sqrt(3072)),
            "This divides by d; the corner of a cube is √d away from its centre.": lambda: 255 * 0.75 / 3072,
            "This is the l2 radius itself, in steps of 1 / 255.": lambda: 0.75 * 255,
        },
    ),
    Exercise(
        name="05.laplace",
        minutes=10,
        difficulty="medium",
        truth=laplace,
        cases=[(0.9, 0.5), (0.99, 0.25), (0.6, 1.0)],
        mistakes={
            "This is the radius of uniform noise, λ (2p - 1).": lambda p, scale: scale * (2 * p - 1),
            "This is the radius of Gaussian noise, σ Φ⁻¹(p).": lambda p, scale: float(scale * stats.norm.ppf(p)),
            "The factor 2 is missing: at p = 1/2 the radius is 0.": lambda p, scale: float(-scale * np.log(1 - p)),
            "The sign is turned: a radius is not negative.": lambda p, scale: float(scale * np.log(2 * (1 - p))),
            "The scale is missing.": lambda p, scale: laplace(p, 1.0),
            "This takes p where 1 - p belongs: the tail is what is left.": lambda p, scale: float(
                scale * np.log(2 * p)
            ),
        },
    ),
    Exercise(
        name="05.two_levels",
        minutes=10,
        difficulty="hard",
        truth=two_levels,
        mistakes={
            "This is the smaller level's own radius; the larger level must keep silent in the whole ball, too.": (
                lambda: float(0.25 * stats.norm.ppf(0.95))
            ),
            "This is their sum; the smaller of the two counts.": lambda: float(
                0.25 * stats.norm.ppf(0.95) - 0.5 * stats.norm.ppf(0.3)
            ),
            "The second radius has the larger level's σ, 0.5.": lambda: float(-0.25 * stats.norm.ppf(0.3)),
            "The sign is turned: Φ⁻¹(0.3) is negative, the distance to one half is not.": lambda: float(
                0.5 * stats.norm.ppf(0.3)
            ),
        },
    ),
]
