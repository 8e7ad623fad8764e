"""The probe of f: its logits on a few noisy images, which tell it from another f where hashes cannot.

They are kept in a record's manifest and compared, not hashed, when the record is opened again: the last bits differ
from machine to machine, and a run must go on on another one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lib.sampling.base import check_answers, other_precision
from lib.smoothing import SmoothedClassifier

Probe = dict[str, object]
OWN = 2  # images of the data set that take part, beside two of independent pixels and two of large blocks
# Of how far logits differ between the images: far above rounding, which a deep network adds up (a ResNet-110 in
# bfloat16 to 0.09, where another kernel sums in another order), and far below what dropout or statistics of the batch
# do (about 1).
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}
HALF = 5e-2  # float16 and TF32 keep 11 bits; so do convolutions on a GPU where torch's settings rule
ROUNDING = 1e-6  # of a logit itself, which may be large for all images alike


@torch.no_grad()
def probe(classifier: SmoothedClassifier, images: Tensor, ids: Sequence[int]) -> Probe:
    """f's logits for noisy images at the noise level of `classifier`, as JSON values.

    `images` (N, C, H, W) in [0, 1] on the device that will certify, and their `ids`: the first OWN take part. The batch
    goes through f twice, and then in two parts. ValueError where f answers differently the second time, or for another
    batch size, by more than rounding: then there is no f to certify; or where its answers are no finite logits.
    """
    images, ids = images[:OWN], list(ids[:OWN])
    points = _noisy(classifier, torch.cat([_made(classifier, images), images]))
    first = _answers(classifier, points)
    again, parts = _answers(classifier, points), [_answers(classifier, part) for part in points.split(3)]
    compute = getattr(classifier.base, "compute", "tf32" if points.is_cuda else "float32")
    precision = compute.split(",")[0] if isinstance(compute, str) else "float32"
    tolerance = TOLERANCE.get(precision, HALF)
    for other, when in ((again, "the second time"), (np.concatenate(parts), "in a batch of another size")):
        apart = _apart(first, other)
        if apart > tolerance:
            raise ValueError(
                f"base answers the same images differently {when}: its logits move by {apart:.2g} of what they differ "
                "between images. It must be one fixed function: no dropout, no noise, no statistics of the batch"
            )
    logits = [[float(f"{value:.7g}") for value in row] for row in first.tolist()]
    return {"ids": ids, "logits": logits, "tolerance": tolerance}


def difference(kept: object, mine: Probe) -> str:
    """What tells the f of a record, whose probe was `kept`, from this one; "" where only rounding does."""
    if not isinstance(kept, Mapping) or "logits" not in kept:
        return "no probe of its base was kept"
    try:
        theirs = np.array(kept["logits"], float)
    except (ValueError, TypeError):
        return "the probe of its base is damaged"
    apart = _apart(theirs, np.array(mine["logits"], float))
    if apart <= float(mine["tolerance"]):  # type: ignore[arg-type]
        return ""
    return f"its base answered the probe otherwise: logits moved by {apart:.2g} of what they differ between images"


def _made(classifier: SmoothedClassifier, like: Tensor) -> Tensor:
    """Two images of independent pixels, two of large blocks, in whole steps of 1/255 (or of the noise's own grid)."""
    channels, height, width = like.shape[1:]
    steps, random = getattr(classifier.noise, "levels", 255), np.random.Generator(np.random.Philox(2019))
    pixels = random.integers(0, steps + 1, (2, channels, height, width))
    blocks = random.integers(0, steps + 1, (2, channels, 2, 2))
    blocks = blocks[:, :, np.arange(height) * 2 // height][..., np.arange(width) * 2 // width]
    return torch.from_numpy(np.concatenate([pixels, blocks])).to(like.dtype).div(steps).to(like.device)


def _noisy(classifier: SmoothedClassifier, images: Tensor) -> Tensor:
    before, _ = classifier.noise.parts(classifier.base)
    points = images if before is None else before(images)
    return classifier.noise.added(points, [(i, 0, 1) for i in range(len(points))], seed=0)


def _answers(classifier: SmoothedClassifier, points: Tensor) -> np.ndarray:
    try:
        logits = classifier.noise.parts(classifier.base)[1](points.clone())  # a base may work in place
    except RuntimeError as error:
        advice = other_precision(classifier.base, points) if "type" in str(error) else ""
        if advice:
            raise ValueError(f"{advice} ({error})") from error
        raise
    check_answers(logits, points, classifier.num_classes)
    if not logits.isfinite().all():
        raise ValueError("base returned logits that are NaN or infinite for noisy images: there is no vote to count")
    return logits.cpu().double().numpy()


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """How far two arrays of logits (images, K) lie apart, against how far a class's logits differ between the images.

    Not against the largest logit: a class that is never answered may have one of -1e9. inf for other shapes.
    """
    if a.shape != b.shape or a.ndim != 2:
        return float("inf")
    moved = np.abs(a - b) - ROUNDING * np.maximum(np.abs(a), np.abs(b))
    spread = max(np.ptp(a, axis=0).max(), np.ptp(b, axis=0).max(), 1e-12)
    return max(float(moved.max() / spread), 0.0)
