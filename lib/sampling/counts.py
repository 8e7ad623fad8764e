"""Class counts of a base classifier under noise: the only hot loop of the kit.

All samples of all images form one queue that is cut into batches; see `class_counts`. Logits may differ in the last bit
between batch shapes, the noise does not.
"""

import re
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lib.sampling.grid import check_on_grid
from lib.sampling.noise import Pieces, noisy_samples

DRAWN_AHEAD = 2**19  # numbers drawn for several small batches at once: threads need not be woken for each anew
# CUDA and NumPy have an exception for it; Apple's GPUs, torch on a CPU, C++ and cuDNN say it each their way.
TOO_LARGE = "out of memory|can't allocate memory|bad_alloc|ALLOC_FAILED"


@torch.no_grad()
def class_counts(
    base: nn.Module,
    images: Tensor,
    ids: Sequence[int],
    n: int,
    *,
    sigma: float,
    num_classes: int,
    seed: int = 0,
    start: int = 0,
    batch_size: int = 1000,
    levels: int | None = None,
    progress: Callable[[int], None] | None = None,
    halved: Callable[[int], None] | None = None,
) -> Tensor:
    """How often `base` answers each class on x + N(0, sigma^2 I), for samples start ... start + n - 1 of every image.

    `images` (N, C, H, W) float in [0, 1], on the device of `base`, which is in eval mode; `ids`: one whole number >= 0
    an image, the key of its noise (its index in the data set). Returns int64 (N, num_classes) there; rows sum to n.
    All samples form one queue that is cut into batches, so many images with few samples each are as fast as one with
    many, and memory does not grow with n. A batch for which there is not enough memory is halved, with a warning, and
    the queue goes on in such batches; `halved` is told their size. `levels`: noise in whole steps of 1 / levels, safe
    from floating point, for images that hold such steps (`lib.sound`; 255 for 8-bit images, 16 for the digits).
    `progress` is told the number of samples queued so far.
    ValueError for images outside [0, 1], a base in training mode, or any argument out of its range.
    """
    _check_base(base, images, ids, num_classes)
    _check_numbers(sigma, n, start, seed, batch_size)
    if levels is not None:
        check_on_grid(images, levels)
    counts = torch.zeros(len(ids), num_classes, dtype=torch.int64, device=images.device)
    done, total = 0, n * len(ids)
    while done < total:
        batches = max(1, DRAWN_AHEAD // (batch_size * images[0].numel()))
        last, noisy = min(done + batches * batch_size, total), None
        try:
            owner = torch.arange(done, last, device=images.device) // n
            noisy = noisy_samples(images[owner], _pieces(ids, n, start, done, last), sigma, seed, levels)
            for batch, owners in zip(noisy.split(batch_size), owner.split(batch_size), strict=True):
                _add_votes(counts, owners, base(batch))
                done += len(batch)
                if progress:
                    progress(done)
        except (RuntimeError, MemoryError) as error:
            batch_size = _halved(min(batch_size, total - done), error)
            if halved:
                halved(batch_size)
    return counts


def _pieces(ids: Sequence[int], n: int, start: int, first: int, last: int) -> Pieces:
    """Places first ... last - 1 of the queue of all samples, which holds n of each image."""
    pieces = []
    for position in range(first // n, -(-last // n)):
        begin, end = max(first - position * n, 0), min(last - position * n, n)
        pieces.append((ids[position], start + begin, end - begin))
    return pieces


def _halved(batch_size: int, error: Exception) -> int:
    """Half the batch that was too large; any other `error`, or that of a single image, is raised again."""
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or re.search(TOO_LARGE, str(error))
    if batch_size == 1 or not known:
        raise error
    advice = f"out of memory with {batch_size} noisy images at once; going on with {batch_size // 2}"
    warnings.warn(advice, stacklevel=4)  # where class_counts was called
    return batch_size // 2


def _add_votes(counts: Tensor, owner: Tensor, logits: Tensor) -> None:
    """One vote a row of `logits` for its argmax; on the device, and exact since the counts are integers."""
    if logits.shape[1:] != counts.shape[1:]:
        raise ValueError(f"num_classes = {counts.shape[1]}, but the base classifier returned {tuple(logits.shape)}")
    votes = owner * counts.shape[1] + logits.argmax(1)
    counts.view(-1).scatter_add_(0, votes, torch.ones_like(votes))


def _check_base(base: nn.Module, images: Tensor, ids: Sequence[int], num_classes: int) -> None:
    if base.training:
        raise ValueError("base is in training mode: call base.eval() first, or batches would change its answers")
    if images.ndim != 4 or not images.is_floating_point() or len(images) != len(ids):
        raise ValueError(
            f"images must be float (N, C, H, W), one for each of the {len(ids)} ids; "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    if len(images) and not (images.min() >= 0 and images.max() <= 1):  # written so that NaN fails
        raise ValueError(f"images must lie in [0, 1]; got values from {images.min():g} to {images.max():g}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2; got {num_classes}")
    if any(not 0 <= image_id < 2**32 for image_id in ids):
        raise ValueError(f"ids must be whole numbers in [0, 2^32); got {min(ids)} to {max(ids)}")


def _check_numbers(sigma: float, n: int, start: int, seed: int, batch_size: int) -> None:
    if not 0 < sigma < float("inf"):
        raise ValueError(f"sigma must be positive and finite; got {sigma!r}")
    for name, value, least in (("n", n, 1), ("start", start, 0), ("seed", seed, 0), ("batch_size", batch_size, 1)):
        if value != int(value) or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}; got {value!r}")
    if seed >= 2**32:
        raise ValueError(f"seed must be below 2^32; got {seed}")
