"""PixelDP and Renyi as bounds: the same votes, read by the older theorems."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from lib.bounds.arguments import checked_open_unit, checked_positive
from lib.bounds.certificate import BOUNDS, Bound, HasRadius
from lib.bounds.radii import pixeldp_radius, renyi_radius

AT_ONCE = 256  # radii computed at once: each is a supremum over a grid of 10,000 or more


@dataclass(frozen=True)
class _Older(Bound):
    """A bound whose probabilities are those of `Bound`, and whose radius is another theorem's."""

    theorem = ""

    @property
    def name(self) -> str:
        return f"{self.theorem}, {super().name}"

    def radius(self, n_a: ArrayLike, n_b: ArrayLike, n: ArrayLike, alpha: ArrayLike, noise: HasRadius) -> np.ndarray:
        p_a, p_b = self.probabilities(n_a, n_b, n, alpha)
        rest = 1 - np.asarray(p_a)
        p_a, p_b = np.broadcast_arrays(p_a, rest if p_b is None else np.minimum(p_b, rest))
        return self._radius_of(p_a, p_b, noise)

    def _radius_of(self, p_a: np.ndarray, p_b: np.ndarray, noise: HasRadius) -> np.ndarray:
        raise NotImplementedError


@dataclass(frozen=True)
class RenyiBound(_Older):
    """The l2 radius of Li et al. 2019, from the Renyi divergence; for Gaussian noise (ValueError else).

    It lies below Cohen's on the same probabilities, and above PixelDP's where p_b = 1 - p_a. (Where both are small it
    may lie below that, too.)
    """

    theorem = "renyi"

    def _radius_of(self, p_a: np.ndarray, p_b: np.ndarray, noise: HasRadius) -> np.ndarray:
        return _in_parts(renyi_radius, p_a, p_b, _level(self, noise, "gaussian"))


@dataclass(frozen=True)
class PixelDPBound(_Older):
    """The radius of PixelDP, from differential privacy (Lecuyer et al. 2019).

    l2 for Gaussian noise, see `pixeldp_radius`. For Laplace noise of scale b it is b ln(p_a / p_b) / 2 in l1, since the
    privacy budget of a step of length r is r / b and the condition is p_a > exp(2 budget) p_b. ValueError for others.
    """

    theorem = "pixeldp"

    def _radius_of(self, p_a: np.ndarray, p_b: np.ndarray, noise: HasRadius) -> np.ndarray:
        if getattr(noise, "law", None) == "laplace":
            with np.errstate(divide="ignore", invalid="ignore"):
                radius = noise.scale * np.log(p_a / p_b) / 2 * (1 - 1e-14)  # type: ignore[attr-defined]
            return np.where(p_a > p_b, radius, 0.0)[()]
        return _in_parts(pixeldp_radius, p_a, p_b, _level(self, noise, "gaussian"))


def pixeldp_sigma(attack: float, epsilon: float = 1.0, delta: float = 0.05) -> float:
    """The Gaussian noise level that makes a layer (epsilon, delta)-private against l2 attacks of size `attack`.

    attack sqrt(2 ln(1.25 / delta)) / epsilon, at sensitivity 1 (Lecuyer et al. 2019). Its defaults are
    the paper's: attacks of 0.03, 0.1, 0.3, 1 are levels of 0.076, 0.25, 0.76, 2.5. ValueError out of range.
    """
    checked_open_unit(delta, "delta"), checked_positive(epsilon, "epsilon"), checked_positive(attack, "attack")
    return attack * math.sqrt(2 * math.log(1.25 / delta)) / epsilon


def _level(bound: Bound, noise: HasRadius, law: str) -> float:
    if getattr(noise, "law", None) != law:
        raise ValueError(f"the {bound.name} bound is for {law} noise; got {noise!r}")
    return float(noise.sigma)  # type: ignore[attr-defined]


def _in_parts(formula: Callable[..., np.ndarray], p_a: np.ndarray, p_b: np.ndarray, sigma: float) -> np.ndarray:
    """`formula` for each pair that differs, where p_a > p_b; 0 elsewhere."""
    radius = np.zeros(p_a.shape)
    certified = p_a > p_b
    pairs, which = np.unique(np.stack([p_a[certified], p_b[certified]]), axis=1, return_inverse=True)
    parts = [formula(*pairs[:, first : first + AT_ONCE], sigma) for first in range(0, pairs.shape[1], AT_ONCE)]
    radius[certified] = np.concatenate(parts)[which.ravel()] if parts else 0.0
    return radius[()]


BOUNDS |= {
    bound.name: bound
    for kind in (RenyiBound, PixelDPBound)
    for anytime, two_class in product((False, True), repeat=2)
    for bound in [kind(anytime=anytime, two_class=two_class)]
}
