"""When an image has been sampled enough: rules that look at the votes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from lib.bounds.anytime import anytime_lower_bound, anytime_upper_bound
from lib.bounds.arguments import checked_open_unit, real_number
from lib.bounds.certificate import Bound, Certificate, HasRadius, StoppingRule


@dataclass(frozen=True, kw_only=True)
class _Looking(StoppingRule):
    """`growth`: votes are looked at after 100 samples and then each time that their number has grown by this factor.

    `beta`: the chance of giving up on an image that all n samples would have certified.
    """

    beta: float = 0.01
    growth: float = 1.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", float(checked_open_unit(self.beta, "beta")))  # the dataclass is frozen
        object.__setattr__(self, "growth", float(self.growth))
        if not 1 < self.growth < float("inf"):
            raise ValueError(f"growth must be above 1; got {self.growth!r}")

    def looks(self, n: int) -> Iterator[int]:
        """Multiples of 100, the last one is n."""
        look = min(100, n)
        while look < n:
            yield look
            look = min(n, max(look + 100, round(look * self.growth / 100) * 100))
        yield n

    def _best(self, n_a: np.ndarray, n_b: np.ndarray, n: int, certificate: Certificate, noise: HasRadius) -> np.ndarray:
        """The two-class radius at the cap if p_a is as high, and p_b as low, as the votes leave open at level beta / 2.

        (As low as the class with the most votes allows: of very many equal ones that may be a little too much.)
        """
        high, low = anytime_upper_bound(n_a, n, self.beta / 2), anytime_lower_bound(n_b, n, self.beta / 2)
        votes = np.floor(certificate.n * high)
        return certificate.radius(
            votes, np.minimum(np.ceil(certificate.n * low), certificate.n - votes), certificate.n, noise
        )


@dataclass(frozen=True, kw_only=True)
class AtRadii(_Looking):
    """Stop an image once it is settled, for each of `radii`, whether it is certified there.

    One radius asks "certified at r?"; the radii of a table give the table. Radius 0 asks whether g answers at all.
    A radius is settled where it is certified, and where it is hopeless: the upper bound on p_a at level beta
    is below the share of votes that would certify it at the cap. (With the two-class bound: the highest p_a and the
    lowest p_b that are still possible would not give it.)
    """

    radii: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.radii, Iterable) or isinstance(self.radii, str):
            raise ValueError(f"radii must be a list such as (0, 0.25, 0.5); got {self.radii!r}")
        radii = [real_number(r, "radii") for r in self.radii]
        if not radii or radii != sorted(set(radii)) or not 0 <= radii[0] <= radii[-1] < float("inf"):
            raise ValueError(f"radii must be finite, >= 0, ascending and at least one; got {self.radii!r}")
        object.__setattr__(self, "radii", tuple(radii))  # the dataclass is frozen

    def settled(
        self, n_a: np.ndarray, n_b: np.ndarray, n: int, certificate: Certificate, noise: HasRadius
    ) -> np.ndarray:
        radius = certificate.radius(n_a, n_b, n, noise)
        reached = np.searchsorted(self.radii, np.where(radius > 0, radius, -1.0), side="right")
        if certificate.bound.two_class:
            best = self._best(n_a, n_b, n, certificate, noise)
            return (best < np.append(self.radii, np.inf)[reached]) | (best == 0)
        needed = needed_shares(self.radii, certificate.n, certificate.alpha, noise)
        needed = np.append(needed, np.inf)  # beyond the last, nothing is asked
        return anytime_upper_bound(n_a, n, self.beta) < needed[reached]


@dataclass(frozen=True, kw_only=True)
class Tolerance(_Looking):
    """Stop an image once all the samples up to the cap would add at most `tolerance` to its radius.

    That is: if the share of votes seen so far stays what it is. An image without a certificate stops where it is
    hopeless, as in `AtRadii`.
    """

    tolerance: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "tolerance", real_number(self.tolerance, "tolerance", 0.05))  # the dataclass is frozen
        if not 0 < self.tolerance < float("inf"):
            raise ValueError(f"tolerance must be positive and finite; got {self.tolerance!r}")

    def settled(
        self, n_a: np.ndarray, n_b: np.ndarray, n: int, certificate: Certificate, noise: HasRadius
    ) -> np.ndarray:
        radius, cap = certificate.radius(n_a, n_b, n, noise), certificate.n
        projected = certificate.radius(np.floor(n_a * cap / n), np.ceil(n_b * cap / n), cap, noise)
        if certificate.bound.two_class:
            hopeless = self._best(n_a, n_b, n, certificate, noise) == 0
        else:
            hopeless = anytime_upper_bound(n_a, n, self.beta) < needed_shares((0.0,), cap, certificate.alpha, noise)
        return np.where(radius > 0, projected - radius <= self.tolerance, hopeless)


@lru_cache(maxsize=64)  # the same for every image and every look of a run
def needed_shares(radii: tuple[float, ...], cap: int, alpha: float, noise: HasRadius) -> np.ndarray:
    """For each radius the least n_a / cap that certifies it at n = cap (that certifies at all, for 0); inf for none."""

    def radius_of(votes: np.ndarray) -> np.ndarray:
        return Bound(anytime=True).radius(votes, cap - votes, cap, alpha, noise)

    below, enough = np.zeros(len(radii)), np.full(len(radii), float(cap))  # the least n_a lies in (below, enough]
    for _ in range(int(cap).bit_length()):
        middle = np.ceil((below + enough) / 2)
        certified = _reaches(radii, radius_of(middle))
        below, enough = np.where(certified, below, middle), np.where(certified, middle, enough)
    return np.where(_reaches(radii, radius_of(enough)), enough / cap, np.inf)


def _reaches(radii: ArrayLike, radius: np.ndarray) -> np.ndarray:
    return (radius >= radii) & (radius > 0)
