"""The smoothed classifier g of Cohen et al. 2019: PREDICT and CERTIFY, built of class counts and confidence bounds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from lib.bounds import ABSTAIN, Certificate, StoppingRule, predict_pvalue
from lib.bounds.arguments import checked_open_unit, whole_number
from lib.sampling import Noise, class_counts
from lib.sampling.base import as_module, check_module
from lib.sampling.counts import image_ids
from lib.sampling.noise import as_noise
from lib.sampling.pace import checked_batch_size, found
from lib.words import AUTO, LARGEST_KEY

__all__ = ["ABSTAIN", "Certificates", "SmoothedClassifier"]


@dataclass(frozen=True)
class Certificates:
    """What CERTIFY returns for N images: arrays of length N."""

    predict: np.ndarray  # int64, the certified class or ABSTAIN
    radius: np.ndarray  # float64, in [0, 1] pixel units (l2 for Gaussian noise); 0 where g abstains
    n_a: np.ndarray  # int64, votes for the selected class among n
    n_b: np.ndarray  # int64, most votes for any other class among n
    selected: np.ndarray  # int64, the class that the n0 samples chose, kept where g abstains too
    n: np.ndarray  # int64, the samples that bounded its probability


class SmoothedClassifier:
    """g(x) = the class that f answers most often on x + noise  (Cohen et al. 2019, equation 1).

    `base`: the classifier f, images (N, C, H, W) in [0, 1] -> logits (N, num_classes): an nn.Module in eval mode, or a
    function. It must give the same answer to the same batch: what draws noise or drops units by itself is no f.
    `sigma`: the level of Gaussian noise in the same [0, 1] units, or a noise of `lib.sampling`, such as
    Grid(0.25, levels=255). `seed` and the ids of the images fix the noise, `batch_size` only the speed: noisy images
    in one forward pass, or "auto", the fastest, found out as sampling goes on. (f's logits may depend on the shape of a
    batch in their last bit, and a vote on a tie of logits with them: who needs the same bytes twice gives a number.)
    ValueError for a part in training mode, a weight that is not finite, a denoiser made for another noise level, or a
    number out of its range.
    """

    def __init__(
        self,
        base: nn.Module | Callable[[Tensor], Tensor],
        sigma: float | Noise,
        num_classes: int,
        *,
        seed: int = 0,
        batch_size: int | str = AUTO,
    ) -> None:
        self.base, self.noise = as_module(base), as_noise(sigma)
        self.num_classes, self.seed = (
            whole_number(num_classes, "num_classes", 2),
            whole_number(seed, "seed", 0, LARGEST_KEY + 1),
        )
        self.batch_size = checked_batch_size(batch_size)
        check_module(self.base)
        for name, module in self.base.named_modules():
            expected = getattr(module, "expected_sigma", None)
            if expected is not None and expected != self.sigma:
                raise ValueError(f"sigma = {self.sigma}, but {name or 'base'} was made for noise of exactly {expected}")
        self._fitting: int | None = None  # a smaller batch, once the memory has run out

    @property
    def sigma(self) -> float:
        """The noise level."""
        return self.noise.sigma

    @property
    def batch_sizes_found(self) -> list[int]:
        """What "auto" has come to so far, in this process: one size for each shape and device; [] for a given size."""
        return found(self.base) if self.batch_size == AUTO else []

    def _fit_in(self, batch_size: int) -> None:
        self._fitting = batch_size

    def sample(
        self, images: Tensor, ids: Iterable[int] | None, n: int, start: int = 0, progress: Callable | None = None
    ) -> np.ndarray:
        """SAMPLEUNDERNOISE: int64 (N, num_classes) counts over noise samples start ... start + n - 1 of each image."""
        size = self.batch_size
        if not isinstance(size, str) and self._fitting:
            size = min(size, self._fitting)
        counts = class_counts(
            self.base, images, ids, n, sigma=self.noise, num_classes=self.num_classes, seed=self.seed, start=start,
            batch_size=size, progress=progress, halved=self._fit_in,
        )  # fmt: skip
        return counts.cpu().numpy()

    def predict(
        self, images: Tensor, ids: Iterable[int] | None = None, n: int = 1000, alpha: float = 0.001
    ) -> np.ndarray:
        """PREDICT: the class g(x) of each image, or ABSTAIN (-1); int64 (N,).

        With probability at least 1 - alpha over the noise, an answer that is not ABSTAIN equals g(x).
        """
        alpha = float(checked_open_unit(alpha, "alpha"))
        counts = self.sample(images, ids, n)
        n_b, n_a = np.sort(counts, axis=1)[:, -2:].T
        return np.where(predict_pvalue(n_a, n_b) <= alpha, counts.argmax(axis=1), ABSTAIN)

    def certify(
        self,
        images: Tensor,
        ids: Iterable[int] | None = None,
        n0: int | None = None,
        n: int | None = None,
        alpha: float | None = None,
        *,
        rule: StoppingRule | None = None,
        two_class: bool = False,
        certificate: Certificate | None = None,
    ) -> Certificates:
        """CERTIFY: for each image a class and a radius within which g answers that class, or ABSTAIN and 0.

        With probability at least 1 - alpha over the noise, an answer that is not ABSTAIN is right: g(x + delta) is that
        class for every delta with a norm (l2 for Gaussian noise) below the radius. n0 samples choose the class, n fresh
        ones bound its probability. `rule` (`AtRadii`, `Tolerance` of lib.bounds) stops an image sooner; no way of
        stopping can void the guarantee, since the bound then holds at all sample sizes at once (Ville's inequality).
        `two_class` bounds the runner-up too, with alpha / 2 each: larger radii where the remaining votes are spread
        over many classes, smaller ones, by 0.03 sigma from n = 10,000 on at alpha = 0.001, where they are not.
        `certificate` says all of this in one object instead. An image sees its samples n0, n0 + 1, ... whatever the
        others do, so its certificate is the same alone or in a sweep.
        """
        how = certificate_of(certificate, n0, n, alpha, rule, two_class)
        ids = np.array(image_ids(ids, len(images)))
        selected = self.sample(images, ids, how.n0).argmax(axis=1)
        counts, taken = np.zeros((len(ids), self.num_classes), np.int64), np.zeros(len(ids), np.int64)
        undecided, seen = np.arange(len(ids)), 0
        for look in how.rule.looks(how.n):
            counts[undecided] += self.sample(images[undecided], ids[undecided], look - seen, start=how.n0 + seen)
            taken[undecided] = seen = look
            if look < how.n:
                n_a, n_b = _votes(counts[undecided], selected[undecided])
                undecided = undecided[~how.rule.settled(n_a, n_b, look, how, self.noise)]
            if not len(undecided):
                break
        n_a, n_b = _votes(counts, selected)
        radius = how.radius(n_a, n_b, taken, self.noise)
        return Certificates(np.where(radius > 0, selected, ABSTAIN), radius, n_a, n_b, selected, taken)


def certificate_of(
    certificate: Certificate | None,
    n0: int | None,
    n: int | None,
    alpha: float | None,
    rule: StoppingRule | None,
    two_class: bool,
) -> Certificate:
    """`certificate`, or the one that the other arguments say. ValueError where both are given."""
    said = {"n0": n0, "n": n, "alpha": alpha, "rule": rule, "two_class": two_class or None}
    twice = [name for name, value in said.items() if value is not None]
    if certificate is not None and twice:
        raise ValueError(f"certificate says all of it: leave out {', '.join(twice)}")
    return certificate or Certificate.of(n0, n, alpha, rule, two_class)


def _votes(counts: np.ndarray, selected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n_a, n_b): votes for the selected class of each image, and the most for any other."""
    column = selected[:, None]
    others = counts.copy()
    np.put_along_axis(others, column, -1, axis=1)
    return np.take_along_axis(counts, column, axis=1)[:, 0], others.max(axis=1)
