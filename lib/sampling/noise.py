"""The noise of smoothing: objects that add it and know the radius it gives, and the keyed streams they draw from.

Noise is keyed, never drawn in call order: sample j of image i under seed s is a fixed part of one stream. So an image's
noise is the same alone or in a sweep, after a crash, on one worker or eight and at any batch size; two images, or two
samples of one, never share it. A GPU draws the bits that a CPU draws; its logarithm and cosine round the last digit of
Gaussian noise their own way. (torch.randn would not do there: its numbers depend on how many processors a GPU has.)
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from lib.bounds import certified_radius
from lib.bounds.arguments import real_number
from lib.sampling.grid import BITS, check_levels, check_on_grid, noisy_on_grid

CPU_BLOCK = 2**16  # numbers made at once: they stay in the cache, where fresh memory costs more than the arithmetic
# What a GPU runs for each 64-bit word of a stream: Philox4x64-10 as NumPy counts it (Salmon et al. 2011).
KERNEL = """
template <typename T> T word(T image, T first, T pair, T seed) {
  unsigned long long place = first + pair, a = place / 4 + 1, b = 0, c = 0, d = 0, k = image, l = seed;
  for (int i = 0; i != 10; ++i) {
    unsigned long long p = 0xD2E7470EE14C6C93ull, q = 0xCA5A826395121157ull;
    unsigned long long high = __umul64hi(p, a), low = p * a;
    a = __umul64hi(q, c) ^ b ^ k, b = q * c, c = high ^ d ^ l, d = low;
    k += 0x9E3779B97F4A7C15ull, l += 0xBB67AE8584CAA73Bull;
  }
  place %= 4;
  a = place == 0 ? a : place == 1 ? b : place == 2 ? c : d;
  RETURNED
}
"""
RETURNED = {
    "bits": "return a / 16;",
    # _box_muller, the cosine's number in the lower half of the word, the sine's in the upper one
    "normal": """
  float radius = sqrtf(-2.0f * logf(((float)(unsigned int)a + 0.5f) * 2.3283064365386963e-10f));
  float angle = (float)(unsigned int)(a / 4294967296ull) * (float)(2 * 3.141592653589793 / 4294967296.0);
  unsigned long long sine = __float_as_uint(radius * sinf(angle));
  return sine * 4294967296ull + __float_as_uint(radius * cosf(angle));""",
}
Pieces = Sequence[tuple[int, int, int]]  # (image id, first sample, number of samples), one after the other
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Noise:
    """What is added to an image before f sees it, and the radius that the votes then certify.

    `sigma`: the noise level, in [0, 1] pixel units, positive and finite (ValueError). A new noise is a subclass with
    `kind`, `norm`, `law`, `scheme`, `added` and `radius`; its fields name it in the record. Noise that enters inside
    the network says in `parts` where.
    """

    sigma: float
    kind: ClassVar[str]  # its name in records
    norm: ClassVar[str]  # in which radii are measured
    law: ClassVar[str]  # its distribution, for bounds that hold for some only
    scheme: ClassVar[str]  # how it is drawn: a part of every record's parameters; a change here changes every count

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", real_number(self.sigma, "sigma"))  # the dataclass is frozen
        if not 0 < self.sigma < float("inf"):
            raise ValueError(f"sigma must be positive and finite; got {self.sigma!r}")

    @property
    def name(self) -> str:
        """Kind and all fields but sigma, such as "grid levels=255"."""
        rest = [f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.name != "sigma"]
        return " ".join([self.kind, *rest])

    @staticmethod
    def named(name: str, sigma: float) -> Noise:
        """The noise with that name and level. ValueError for a name that no class here has."""
        kind, *rest = name.split() or [""]
        if kind not in NOISES:
            raise ValueError(f"noise = {name!r}: expected one of {', '.join(NOISES)}")
        return NOISES[kind](sigma, **{field: ast.literal_eval(value) for field, value in (x.split("=") for x in rest)})

    def parts(self, base: nn.Module) -> tuple[Network | None, Network]:
        """(before, after): the noise is added to before(images), computed once an image, and `after` sees the sum.

        None for nothing before, which is the rule: the images themselves get the noise.
        """
        return None, base

    def check(self, images: Tensor) -> None:
        """ValueError for images that this noise cannot be added to."""

    def added(self, images: Tensor, pieces: Pieces, seed: int) -> Tensor:
        """`images` (M, ...), one a sample, with the noise of the samples `pieces`; not clipped."""
        raise NotImplementedError

    def radius(self, p_a: ArrayLike, p_b: ArrayLike | None = None) -> np.ndarray:
        """The certified radius of a top class with probability >= p_a, the others with <= p_b (1 - p_a where None)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Gaussian(Noise):
    """N(0, sigma^2 I): the noise of Cohen et al. 2019, whose Theorem 1 gives the l2 radius."""

    kind, norm, law, scheme = "gaussian", "l2", "gaussian", "philox, Box-Muller"

    def added(self, images: Tensor, pieces: Pieces, seed: int) -> Tensor:
        return standard_normal(images.shape[1:], seed, pieces, images.device).mul_(self.sigma).add_(images)

    def radius(self, p_a: ArrayLike, p_b: ArrayLike | None = None) -> np.ndarray:
        return certified_radius(p_a, self.sigma, p_b)


@dataclass(frozen=True)
class Grid(Noise):
    """The same noise in whole steps of 1 / levels, safe from floating point (`lib.sampling.grid`).

    `levels`: 255 for 8-bit images, 16 for the digits; images must lie on the grid. f is then the base classifier after
    rounding and clipping, to which Theorem 1 applies.
    """

    levels: int
    kind, norm, law, scheme = "grid", "l2", "gaussian", "philox, grid"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_levels(self.levels)
        object.__setattr__(self, "levels", int(self.levels))

    def check(self, images: Tensor) -> None:
        check_on_grid(images, self.levels)

    def added(self, images: Tensor, pieces: Pieces, seed: int) -> Tensor:
        bits = uniform_bits(images.shape[1:], seed, pieces, images.device)
        return noisy_on_grid(images, bits, self.sigma, self.levels)

    def radius(self, p_a: ArrayLike, p_b: ArrayLike | None = None) -> np.ndarray:
        return certified_radius(p_a, self.sigma, p_b)


NOISES: dict[str, type[Noise]] = {noise.kind: noise for noise in (Gaussian, Grid)}  # other files add theirs


def as_noise(sigma: float | Noise) -> Noise:
    """A number stands for Gaussian noise of that level."""
    return sigma if isinstance(sigma, Noise) else Gaussian(sigma)


def standard_normal(shape: Sequence[int], seed: int, pieces: Pieces, device: torch.device) -> Tensor:
    """N(0, 1) for the samples `pieces`: float32 (samples, *shape).

    A function of its arguments, sample by sample; the kind of `device` decides the last digit. Philox is counter-based:
    key and counter name a place in a stream outright, and distinct names never overlap. (Seeding torch's CPU generator
    would not do: it keeps 32 bits of the seed, so a large sweep repeats noise.)
    """
    if device.type == "cuda":
        size = math.prod(shape)
        words = _words("normal", seed, pieces, -(-size // 2), device)
        halves = words.view(torch.float32).unflatten(1, (-1, 2)).transpose(1, 2).flatten(1)  # cosines, then sines
        return halves[:, :size].reshape(-1, *shape)
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
        return _words("bits", seed, pieces, math.prod(shape), device).reshape(-1, *shape)
    words = np.concatenate([_bits(seed, *piece, int(np.prod(shape))) for piece in pieces]).view(np.uint64)
    return torch.from_numpy((words >> np.uint64(64 - BITS)).astype(np.int64).reshape(-1, *shape)).to(device)


def _bits(seed: int, image_id: int, first: int, count: int, pairs: int) -> np.ndarray:
    """The random bits of samples first ... first + count - 1 of an image: uint32 (count, pairs, 2)."""
    counter, skip = divmod(first * pairs, 4)  # Philox makes four 64-bit words a step
    philox = np.random.Philox(key=seed << 64 | image_id, counter=counter)
    return philox.random_raw(skip + count * pairs)[skip:].view(np.uint32).reshape(count, pairs, 2)


def _words(kind: str, seed: int, pieces: Pieces, each: int, device: torch.device) -> Tensor:
    """What the kernel makes of `each` words a sample, on a GPU: int64 (samples, each). One launch for all pieces."""
    ids, first, count = np.array(pieces, np.int64).T
    within = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    names = np.stack([np.repeat(ids, count), (np.repeat(first, count) + within) * each])[..., None]
    # from pinned memory: any other copy waits until the GPU has done all that it was told before
    image, start = torch.from_numpy(names).pin_memory().to(device, non_blocking=True)
    return _kernel(kind)(image, start, torch.arange(each, device=device), seed=seed)


@cache
def _kernel(kind: str) -> Callable[..., Tensor]:
    """Compiled by torch at its first call for a device, in a second, and kept on the disk."""
    from torch.cuda.jiterator import _create_jit_fn  # documented, beta

    return _create_jit_fn(KERNEL.replace("RETURNED", RETURNED[kind]).replace(" word(", f" keyed_{kind}("), seed=0)
