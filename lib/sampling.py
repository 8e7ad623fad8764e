"""Class counts of a base classifier under Gaussian noise: the only hot loop of the kit.

Noise is keyed, never drawn in call order: sample j of image i under seed s is a fixed part of the stream that a
counter-based generator has for (s, i). So an image's noise is the same alone or in a sweep, after a crash, on one
worker or eight and at any batch size; two images, or two samples of one, never share it.
The noise of a CPU and of a GPU differ, and logits may differ in the last bit between batch shapes.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from lib.sound import BITS, check_on_grid, noisy_on_grid

NOISE_SCHEME = "philox, Box-Muller"  # goes into every record; a change here changes every count
CPU_BLOCK = 2**16  # numbers made at once: they stay in the cache, where fresh memory costs more than the arithmetic
DRAWN_AHEAD = 2**19  # numbers drawn for several small batches at once: threads need not be woken for each anew
CUDA_BLOCK = 100  # samples that one call of torch.randn makes on a GPU
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
            noisy = _noisy(images[owner], _pieces(ids, n, start, done, last), sigma, seed, levels)
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


Pieces = Sequence[tuple[int, int, int]]  # (image id, first sample, number of samples), one after the other


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


def _noisy(images: Tensor, pieces: Pieces, sigma: float, seed: int, levels: int | None) -> Tensor:
    """`images`, one a sample, with the noise of the samples `pieces`."""
    if levels is None:
        return standard_normal(images.shape[1:], seed, pieces, images.device).mul_(sigma).add_(images)
    return noisy_on_grid(images, uniform_bits(images.shape[1:], seed, pieces, images.device), sigma, levels)


def standard_normal(shape: Sequence[int], seed: int, pieces: Pieces, device: torch.device) -> Tensor:
    """N(0, 1) for the samples `pieces`: float32 (samples, *shape).

    A function of its arguments and of the type of `device`, sample by sample. Philox is counter-based: key and counter
    name a place in a stream outright, and distinct names never overlap. (Seeding torch's CPU generator would not do: it
    keeps 32 bits of the seed, so a large sweep repeats noise.)
    """
    if device.type == "cuda":
        return torch.cat([_cuda_noise(torch.randn, shape, seed, *piece, device) for piece in pieces])
    size, done = int(np.prod(shape)), 0
    noise = np.empty((sum(count for _, _, count in pieces), size), np.float32)
    for image_id, first, count in _in_blocks(pieces, max(1, CPU_BLOCK // size)):
        _box_muller(_bits(seed, image_id, first, count, -(-size // 2)), noise[done : done + count])
        done += count
    return torch.from_numpy(noise.reshape(-1, *shape)).to(device)


def _in_blocks(pieces: Pieces, most: int) -> Iterator[tuple[int, int, int]]:
    for image_id, first, count in pieces:
        for begin in range(0, count, most):
            yield image_id, first + begin, min(most, count - begin)


def _box_muller(bits: np.ndarray, normal: np.ndarray) -> None:
    """uint32 (samples, pairs, 2) -> float32 (samples, size), in place.

    In float32 on purpose: it is what the classifier sees, and NumPy vectorises it (half the time of its own ziggurat,
    whose numbers moreover cannot be addressed one by one).
    """
    pairs, uniform = bits.shape[1], bits.astype(np.float32)
    radius = np.sqrt(-2 * np.log((uniform[..., 0] + np.float32(0.5)) * np.float32(2**-32)))
    angle = uniform[..., 1] * np.float32(2 * np.pi * 2**-32)
    np.multiply(radius, np.cos(angle), out=normal[:, :pairs])
    normal[:, pairs:] = (radius * np.sin(angle))[:, : normal.shape[1] - pairs]


def uniform_bits(shape: Sequence[int], seed: int, pieces: Pieces, device: torch.device) -> Tensor:
    """Uniform in 0 ... 2^60 - 1 for the samples `pieces`, keyed as `standard_normal` is: int64 (samples, *shape)."""
    if device.type == "cuda":
        draw = partial(torch.randint, 2**BITS)
        return torch.cat([_cuda_noise(draw, shape, seed, *piece, device) for piece in pieces])
    words = np.concatenate([_bits(seed, *piece, int(np.prod(shape))) for piece in pieces]).view(np.uint64)
    return torch.from_numpy((words >> np.uint64(64 - BITS)).astype(np.int64).reshape(-1, *shape)).to(device)


def _bits(seed: int, image_id: int, first: int, count: int, pairs: int) -> np.ndarray:
    """The random bits of samples first ... first + count - 1 of an image: uint32 (count, pairs, 2)."""
    counter, skip = divmod(first * pairs, 4)  # Philox makes four 64-bit words a step
    philox = np.random.Philox(key=seed << 64 | image_id, counter=counter)
    return philox.random_raw(skip + count * pairs)[skip:].view(np.uint32).reshape(count, pairs, 2)


def _cuda_noise(
    draw: Callable[..., Tensor],
    shape: Sequence[int],
    seed: int,
    image_id: int,
    first: int,
    count: int,
    device: torch.device,
) -> Tensor:
    """On a GPU torch draws by Philox too: a block of samples is one call, at its own offset in the image's stream."""
    generator, noise = torch.Generator(device).manual_seed(seed << 32 | image_id), []
    for block in range(first // CUDA_BLOCK, -(-(first + count) // CUDA_BLOCK)):
        generator.set_offset(block << 20)  # a block draws far fewer than 2^20 numbers a thread
        noise.append(draw((CUDA_BLOCK, *shape), generator=generator, device=device))
    skip = first % CUDA_BLOCK
    return torch.cat(noise)[skip : skip + count]


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
