"""Class counts of a base classifier under Gaussian noise: the only hot loop of the kit.

Noise is keyed, never drawn in call order. Sample j of image i under seed s is row j % CHUNK of the block that a
counter-based generator makes from (s, i, j // CHUNK). So an image's noise is the same alone or in a sweep, after a
crash, on one worker or eight and at any batch size; two images, or two samples of one, never share it.
The normal deviates of a CPU and of a GPU differ, and logits may differ in the last bit between batch shapes.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

CHUNK = 100  # samples a block: the papers' n0, so that selecting a class costs one block an image
NOISE_SCHEME = "philox-100"  # goes into every record; a change here changes every count


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
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """How often `base` answers each class on x + N(0, sigma^2 I), for samples start ... start + n - 1 of every image.

    `images` (N, C, H, W) float in [0, 1], on the device of `base`, which is in eval mode; `ids`: one whole number >= 0
    an image, the key of its noise (its index in the data set). Returns int64 (N, num_classes) there; rows sum to n.
    All samples form one queue that is cut into batches, so many images with few samples each are as fast as one with
    many, and memory does not grow with n. `progress` is told the number of samples queued so far.
    ValueError for images outside [0, 1], a base in training mode, or any argument out of its range.
    """
    _check_base(base, images, ids, num_classes)
    _check_numbers(sigma, n, start, seed, batch_size)
    counts = torch.zeros(len(ids), num_classes, dtype=torch.int64, device=images.device)
    size = min(batch_size, n * len(ids))
    noisy = images.new_empty(size, *images.shape[1:])
    owner = torch.empty(size, dtype=torch.int64, device=images.device)  # which image each row of the batch belongs to
    filled = done = 0
    for image, noise in _noise_queue(images, ids, n, start, seed):
        while len(noise):
            rows = slice(filled, min(filled + len(noise), size))
            filled = rows.stop
            fits, noise = noise[: filled - rows.start], noise[filled - rows.start :]
            torch.add(images[image], fits, alpha=sigma, out=noisy[rows])
            owner[rows] = image
            done += len(fits)
            if filled == size or done == n * len(ids):
                _add_votes(counts, owner[:filled], base(noisy[:filled]))
                filled = 0
                if progress:
                    progress(done)
    return counts


def _noise_queue(images: Tensor, ids: Sequence[int], n: int, start: int, seed: int) -> Iterator[tuple[int, Tensor]]:
    """(position of the image, noise (at most CHUNK, C, H, W)) until each image has had its n samples."""
    for position, image_id in enumerate(ids):
        for block in range(start // CHUNK, -(-(start + n) // CHUNK)):
            noise = standard_normal((CHUNK, *images.shape[1:]), seed, image_id, block, images.device)
            first = block * CHUNK
            yield position, noise[max(start - first, 0) : start + n - first]


def standard_normal(shape: tuple[int, ...], seed: int, image_id: int, block: int, device: torch.device) -> Tensor:
    """Block `block` of the noise of image `image_id`: float32 N(0, 1), a function of its arguments and the device type.

    Philox is a counter-based generator: key and counter name a block outright, and distinct names never overlap.
    (Seeding torch's CPU generator would not do: it keeps 32 bits of the seed, so a large sweep repeats noise.)
    """
    if device.type == "cuda":
        generator = torch.Generator(device).manual_seed(seed << 32 | image_id)
        generator.set_offset(block << 20)  # a block draws far fewer than 2^20 numbers a thread
        return torch.randn(shape, generator=generator, device=device)
    philox = np.random.Philox(key=np.array([seed, image_id], np.uint64), counter=np.array([0, 0, 0, block], np.uint64))
    return torch.from_numpy(np.random.Generator(philox).standard_normal(shape, np.float32)).to(device)


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
