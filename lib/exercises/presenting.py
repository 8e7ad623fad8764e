"""The exercises of notebook 07: an interval, a verdict, and how many images a claim needs."""

import math

from scipy import stats

from lib.bounds import accuracy_interval
from lib.exercises.exercise import Exercise


def low(level: float = 0.025, hits: int = 40, images: int = 100) -> float:
    """The lower end of Clopper and Pearson's interval."""
    return float(stats.beta.ppf(level, hits, images - hits + 1))


def verdict(paper: float, hits: int, images: int) -> float:
    """0 where the paper's percentage lies in the 95 % interval of hits out of images; else the difference in points."""
    below, above = (100 * float(end) for end in accuracy_interval(hits, images))
    return 0.0 if below <= paper <= above else 100 * hits / images - paper


def needed(half: float = 0.03, z: float = 1.96, variance: float = 0.25) -> int:
    """Images for an interval of +- half, by the normal approximation."""
    return math.ceil(variance * (z / half) ** 2)


EXERCISES: list[Exercise] = [
    Exercise(
        name="07.low",
        minutes=5,
        difficulty="easy",
        truth=low,
        mistakes={
            "This has 5 % on this side alone; the interval has two sides, 2.5 % each.": lambda: low(0.05),
            "This is the share itself; the interval's end lies below it.": lambda: 0.4,
            "This is the upper end.": lambda: float(stats.beta.ppf(0.975, 41, 60)),
            "This is in per cent; a fraction is asked for.": lambda: 100 * low(),
        },
    ),
    Exercise(
        name="07.verdict",
        minutes=10,
        difficulty="medium",
        truth=verdict,
        cases=[(41, 183, 500), (22, 110, 500), (8, 41, 500), (60, 287, 500), (77, 300, 500), (25, 200, 500)],
        mistakes={
            "It compares a percentage with fractions: multiply the interval by 100.": lambda paper, hits, images: (
                100 * hits / images - paper
            ),
            "The difference is turned around: ours minus the paper's.": lambda paper, hits, images: (
                -verdict(paper, hits, images)
            ),
            "This is a difference of fractions; in points it is a hundred times as much.": lambda paper, hits, images: (
                verdict(paper, hits, images) / 100
            ),
            "It says 0 whatever the interval is.": lambda paper, hits, images: 0.0,
            "It says 0 wherever ours is at or above the paper's; one may also differ upwards.": (
                lambda paper, hits, images: min(0.0, verdict(paper, hits, images))
            ),
        },
    ),
    Exercise(
        name="07.images",
        minutes=10,
        difficulty="medium",
        truth=needed,
        mistakes={
            "Rounded down this is one image too few; round up.": lambda: needed() - 1,
            "This is for a width of 3 points in all; ± 3 points are 6.": lambda: needed(half=0.015),
            "This is for ± 6 points.": lambda: needed(half=0.06),
            "This takes p = 0.5 where p (1 - p) = 0.25 belongs.": lambda: needed(variance=0.5),
            "The square is missing.": lambda: math.ceil(0.25 * 1.96 / 0.03),
        },
    ),
]
