"""Noise that is keyed, never drawn in call order: sample j of image i under seed s is a fixed part of one stream.

So an image's noise is the same alone or in a sweep, after a crash, on one worker or eight and at any batch size; two
images, or two samples of one, never share it. The noise of a CPU and of a GPU differ.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lib.sampling.grid import BITS, noisy_on_grid

NOISE_SCHEME = "philox, Box-Muller"  # goes into every record; a change here changes every count
CPU_BLOCK = 2**16  # numbers made at once: they stay in the cache, where fresh memory costs more than the arithmetic
CUDA_BLOCK = 100  # samples that one call of torch.randn makes on a GPU
Pieces = Sequence[tuple[int, int, int]]  # (image id, first sample, number of samples), one after the other


def noisy_samples(images: Tensor, pieces: Pieces, sigma: float, seed: int, levels: int | None) -> Tensor:
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
