"""The smoothed classifier g of Cohen et al. 2019: PREDICT and CERTIFY, built of class counts and confidence bounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from lib.bounds import ABSTAIN, StoppingRule, anytime_radius, predict_pvalue, radius_from_counts
from lib.sampling import class_counts

__all__ = ["ABSTAIN", "Certificates", "SmoothedClassifier"]


@dataclass(frozen=True)
class Certificates:
    """What CERTIFY returns for N images: five arrays of length N and the sample sizes they rest on."""

    predict: np.ndarray  # int64, the certified class or ABSTAIN
    radius: np.ndarray  # float64, l2, in [0, 1] pixel units; 0 where g abstains
    n_a: np.ndarray  # int64, votes for the selected class among n
    n_b: np.ndarray  # int64, most votes for any other class among n
    selected: np.ndarray  # int64, the class that the n0 samples chose, kept where g abstains too
    n0: int
    n: int | np.ndarray  # int64 (N,) where a stopping rule gave each image its own


class SmoothedClassifier:
    """g(x) = the class that f answers most often on x + N(0, sigma^2 I)  (Cohen et al. 2019, equation 1).

    `base`: the classifier f, images (N, C, H, W) in [0, 1] -> logits (N, num_classes), in eval mode. `sigma`: the noise
    level in the same [0, 1] units. `seed` and the ids of the images fix the noise, `batch_size` only the speed.
    `levels` keeps noisy images on the grid of step 1 / levels, so that no rounding of floating point can void a
    certificate (`lib.sound`): f is then `base` after rounding and clipping, and images must lie on the grid.
    A denoiser in `base` that was made for another noise level is refused: ValueError.
    """

    def __init__(
        self,
        base: nn.Module,
        sigma: float,
        num_classes: int,
        *,
        seed: int = 0,
        batch_size: int = 1000,
        levels: int | None = None,
    ) -> None:
        for name, module in base.named_modules():
            expected = getattr(module, "expected_sigma", None)
            if expected is not None and expected != sigma:
                raise ValueError(f"sigma = {sigma}, but {name or 'base'} was made for noise of exactly {expected}")
        self.base, self.sigma, self.num_classes = base, sigma, num_classes
        self.seed, self.batch_size, self.levels = seed, batch_size, levels
        self._fitting = batch_size  # smaller once the memory has run out

    def _fit_in(self, batch_size: int) -> None:
        self._fitting = batch_size

    def sample(
        self, images: Tensor, ids: Sequence[int], n: int, start: int = 0, progress: Callable | None = None
    ) -> np.ndarray:
        """SAMPLEUNDERNOISE: int64 (N, num_classes) counts over noise samples start ... start + n - 1 of each image."""
        counts = class_counts(
            self.base, images, ids, n, sigma=self.sigma, num_classes=self.num_classes, seed=self.seed,
            start=start, batch_size=self._fitting, levels=self.levels, progress=progress, halved=self._fit_in,
        )  # fmt: skip
        return counts.cpu().numpy()

    def predict(self, images: Tensor, ids: Sequence[int], n: int, alpha: float) -> np.ndarray:
        """PREDICT: the class g(x) of each image, or ABSTAIN (-1); int64 (N,).

        With probability at least 1 - alpha over the noise, an answer that is not ABSTAIN equals g(x).
        """
        counts = self.sample(images, ids, n)
        top = counts.argmax(axis=1)
        n_b, n_a = np.sort(counts, axis=1)[:, -2:].T
        return np.where(predict_pvalue(n_a, n_b) <= _checked_alpha(alpha), top, ABSTAIN)

    def certify(
        self,
        images: Tensor,
        ids: Sequence[int],
        n0: int,
        n: int,
        alpha: float,
        *,
        two_class: bool = False,
        progress: Callable | None = None,
    ) -> Certificates:
        """CERTIFY: for each image a class and an l2 radius within which g answers that class, or ABSTAIN and 0.

        With probability at least 1 - alpha over the noise, an answer that is not ABSTAIN is right: g(x + delta) is that
        class for every delta with l2 norm below the radius. n0 samples choose the class, n fresh ones bound its
        probability. `two_class` bounds the runner-up too, with alpha / 2 each: larger radii where the remaining votes
        are spread over many classes, smaller ones, by 0.03 sigma from n = 10,000 on at alpha = 0.001, where
        they are not.
        """
        _checked_alpha(alpha)
        selected = self.sample(images, ids, n0).argmax(axis=1)
        n_a, n_b = _votes(self.sample(images, ids, n, start=n0, progress=progress), selected)
        radius = radius_from_counts(n_a, n, self.sigma, alpha, n_b=n_b if two_class else None)
        return Certificates(np.where(radius > 0, selected, ABSTAIN), radius, n_a, n_b, selected, n0, n)

    def certify_sequential(
        self,
        images: Tensor,
        ids: Sequence[int],
        n0: int,
        n: int,
        alpha: float,
        rule: StoppingRule,
        *,
        two_class: bool = False,
    ) -> Certificates:
        """CERTIFY with as many samples as each image needs, n at most: an image stops as soon as `rule` says so.

        The guarantee is that of `certify`, at the same alpha: the bound under the radius holds at all sample sizes at
        once, by Ville's inequality (`lib.sequential.anytime_lower_bound`), so no way of stopping can spend more of it.
        Rounds of growing size go over the images that are still open, in batches that mix them. An image sees its
        samples n0, n0 + 1, ... whatever the others do, so its certificate is the same alone or in a sweep.
        `two_class` as in `certify`.
        """
        _checked_alpha(alpha)
        selected = self.sample(images, ids, n0).argmax(axis=1)
        counts = np.zeros((len(ids), self.num_classes), np.int64)
        taken, active, done = np.zeros(len(ids), np.int64), np.arange(len(ids)), 0
        for look in rule.looks(n):
            open_ids = [ids[i] for i in active]
            counts[active] += self.sample(images[active], open_ids, look - done, start=n0 + done)
            taken[active] = done = look
            n_a, n_b = _votes(counts[active], selected[active])
            settled = rule.settled(
                n_a, look, sigma=self.sigma, alpha=alpha, cap=n, n_b=n_b if two_class else None
            )  # fmt: skip
            active = active[~settled]
            if not len(active):
                break
        n_a, n_b = _votes(counts, selected)
        radius = anytime_radius(n_a, taken, self.sigma, alpha, n_b if two_class else None)
        return Certificates(np.where(radius > 0, selected, ABSTAIN), radius, n_a, n_b, selected, n0, taken)


def _votes(counts: np.ndarray, selected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n_a, n_b): votes for the selected class of each image, and the most for any other."""
    column = selected[:, None]
    others = counts.copy()
    np.put_along_axis(others, column, -1, axis=1)
    return np.take_along_axis(counts, column, axis=1)[:, 0], others.max(axis=1)


def _checked_alpha(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie strictly between 0 and 1; got {alpha!r}")
    return alpha
