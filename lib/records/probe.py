"""The probe of f: its logits on a fixed noisy batch, which tell it from another f where hashes cannot.

They are kept in a record's manifest and compared, not hashed, when the record is opened again: the last bits differ
from machine to machine, and a run must go on on another one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lib.sampling.base import check_answers
from lib.smoothing import SmoothedClassifier

Probe = dict[str, object]
IMAGES = 4  # two of independent pixels, two of large blocks
TOLERANCE = {"float32": 1e-3}  # of the largest logit; far above rounding, far below another f
HALF = 5e-2  # bfloat16, float16 and TF32 keep 8 to 11 bits


@torch.no_grad()
def probe(classifier: SmoothedClassifier, shape: Sequence[int], device: torch.device | str = "cpu") -> Probe:
    """f's logits for IMAGES noisy images of `shape` (C, H, W) at the noise level of `classifier`, as JSON values.

    The batch goes through f twice, and then in two parts. ValueError where f answers differently the second time, or
    for another batch size, by more than rounding: then there is no f to certify; or where its answers are no finite
    logits.
    """
    points = _noisy(classifier, shape, device)
    first = _answers(classifier, points)
    again, parts = _answers(classifier, points), [_answers(classifier, part) for part in points.split(IMAGES // 2)]
    tolerance = TOLERANCE.get(getattr(classifier.base, "compute", "float32").split(",")[0], HALF)
    for other, when in ((again, "the second time"), (np.concatenate(parts), "in a batch of another size")):
        apart = _apart(first, other)
        if apart > tolerance:
            raise ValueError(
                f"base answers the same images differently {when}: its logits differ by {apart:.2g} of the largest. "
                "It must be one fixed function: no dropout or noise of its own, no statistics of the batch"
            )
    return {"logits": [[float(f"{value:.6g}") for value in row] for row in first.tolist()], "tolerance": tolerance}


def difference(kept: object, mine: Probe) -> str:
    """What tells the f of a record, whose probe was `kept`, from this one; "" where only rounding does."""
    if not isinstance(kept, Mapping):
        return "no probe of its base was kept"
    apart = _apart(np.array(kept["logits"]), np.array(mine["logits"]))
    if apart <= float(mine["tolerance"]):  # type: ignore[arg-type]
        return ""
    return f"its base answered the probe otherwise: logits differ by {apart:.2g} of the largest"


def _noisy(classifier: SmoothedClassifier, shape: Sequence[int], device: torch.device | str) -> Tensor:
    """Images of whole steps of 1/255 (or of the noise's own grid), with the noise of their first samples."""
    channels, height, width = shape
    steps, random = getattr(classifier.noise, "levels", 255), np.random.Generator(np.random.Philox(2019))
    pixels = random.integers(0, steps + 1, (2, *shape))
    blocks = random.integers(0, steps + 1, (2, channels, 2, 2))
    blocks = blocks[:, :, np.arange(height) * 2 // height][..., np.arange(width) * 2 // width]
    images = torch.from_numpy(np.concatenate([pixels, blocks])).float().div(steps).to(device)
    before, _ = classifier.noise.parts(classifier.base)
    points = images if before is None else before(images)
    return classifier.noise.added(points, [(i, 0, 1) for i in range(IMAGES)], seed=0)


def _answers(classifier: SmoothedClassifier, points: Tensor) -> np.ndarray:
    logits = classifier.noise.parts(classifier.base)[1](points)
    check_answers(logits, points, classifier.num_classes)
    if not logits.isfinite().all():
        raise ValueError("base returned logits that are NaN or infinite for noisy images: there is no vote to count")
    return logits.double().cpu().numpy() if logits.device.type != "mps" else logits.cpu().double().numpy()


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two arrays of logits, as a part of the largest logit; inf for other shapes."""
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(a - b).max() / max(np.abs(a).max(), np.abs(b).max(), 1e-12))
