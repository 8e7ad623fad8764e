"""Class counts of a base classifier under noise: the only hot loop of the kit.

All samples of all images form one queue that is cut into batches; see `class_counts`. Logits may differ in the last bit
between batch shapes, the noise does not.
"""

import re
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lib.bounds.arguments import whole_number
from lib.machine.memory import keep_memory
from lib.sampling.base import as_module, check_answers, modules_inside, other_precision
from lib.sampling.noise import Noise, Pieces, as_noise
from lib.sampling.pace import TRIES, pace_of
from lib.words import AUTO, LARGEST_KEY

DRAWN_AHEAD = 2**19  # numbers drawn for several small batches at once: threads need not be woken for each anew
# CUDA and NumPy have an exception for it; Apple's GPUs, torch on a CPU, C++ and cuDNN say it each their way.
TOO_LARGE = "out of memory|can't allocate memory|bad_alloc|ALLOC_FAILED"


@torch.no_grad()
def class_counts(
    base: nn.Module | Callable[[Tensor], Tensor],
    images: Tensor,
    ids: Iterable[int] | None,
    n: int,
    *,
    sigma: float | Noise,
    num_classes: int,
    seed: int = 0,
    start: int = 0,
    batch_size: int | str = AUTO,
    counting: Literal["votes", "scores"] = "votes",
    progress: Callable[[int], None] | None = None,
    halved: Callable[[int], None] | None = None,
) -> Tensor:
    """How often `base` answers each class on noisy copies of each image: samples start ... start + n - 1.

    `images` (N, C, H, W) float in [0, 1], on the device of `base`, which is in eval mode; `ids`: one whole number an
    image, 0 ... 2^32 - 1, the key of its noise (its index in the data set; None: 0 ... N - 1). `sigma`: the level of
    Gaussian noise, or a noise of `lib.sampling.noise`.
    Returns, on the same device, votes: int64 (N, num_classes) whose rows sum to n; or scores: float64, the sums of the
    softmax, equal at any batch size but for rounding.
    All samples form one queue that is cut into batches, so many images with few samples each are as fast as one with
    many, and memory does not grow with n. `batch_size`: how many samples at most go through `base` at once; "auto"
    times batches of the run until it knows the fastest, and goes on with it at the next call (`lib.sampling.pace`).
    A batch for which there is not enough memory is halved, with a warning where its size was given, and the queue goes
    on in such batches; `halved` is told their size. `progress` is told the number of samples done.
    ValueError for images outside [0, 1], a base in training mode or whose logits are not finite or not one row of
    num_classes an image, or any argument out of its range.
    """
    base, noise = as_module(base), as_noise(sigma)
    ids = image_ids(ids, len(images))
    _check_base(base, images, ids, num_classes)
    n, start = whole_number(n, "n"), whole_number(start, "start", 0)
    seed = whole_number(seed, "seed", 0, LARGEST_KEY + 1)
    pace = pace_of(base, images, batch_size)
    if images.device.type == "cpu":
        keep_memory()
    noise.check(images)
    before, after = noise.parts(base)
    points = images if before is None else before(images)
    dtype = torch.int64 if counting == "votes" else torch.float64
    sums = torch.zeros(len(ids), num_classes, dtype=dtype, device=images.device)
    finite = torch.ones((), dtype=torch.bool, device=images.device)  # asked at the end: a GPU is not made to wait
    done, total = 0, n * len(ids)
    while done < total:
        size, timed = pace.plan(total - done)
        batches = TRIES if timed else max(1, DRAWN_AHEAD // (size * points[0].numel()))
        last, noisy, seconds = min(done + batches * size, total), None, []
        try:
            owner = torch.arange(done, last, device=images.device) // n
            noisy = noise.added(points[owner], _pieces(ids, n, start, done, last), seed)
            for batch, owners in zip(noisy.split(size), owner.split(size), strict=True):
                started = time.perf_counter()
                finite &= _add(sums, owners, after(batch), batch)
                if timed:
                    finite.item()  # waits for the device
                    seconds.append((time.perf_counter() - started) / size)
                done += len(batch)
                if progress:
                    progress(done)
            if timed:
                pace.took(size, min(seconds))
        except (RuntimeError, MemoryError) as error:
            _check_memory(error, base, images, size := min(size, total - done))
            smaller = pace.halve(size)
            if batch_size != AUTO:
                warnings.warn(
                    f"out of memory with {size} noisy images at once; going on with {smaller}", stacklevel=3
                )  # where class_counts was called: torch.no_grad is a frame between
            if halved:
                halved(smaller)
    if not finite:
        raise ValueError("base returned logits that are NaN or infinite for noisy images: there is no vote to count")
    return sums


def image_ids(ids: Iterable[int] | None, count: int) -> list[int]:
    """`ids` as Python ints, 0 ... count - 1 where there are none; any kind of whole number is taken.

    ValueError where they are not one for each of `count` images, out of range, or name one image twice.
    """
    if ids is not None and not isinstance(ids, Iterable):
        raise ValueError(f"ids must be a list of whole numbers, such as [0, 20, 40]; got {ids!r:.80}")
    ids = list(range(count)) if ids is None else [whole_number(i, "ids", 0, LARGEST_KEY + 1) for i in ids]
    if len(ids) != count:
        raise ValueError(f"ids must be one for each of the {count} images; got {len(ids)}")
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ValueError(f"ids must not name an image twice, or its noise would be drawn twice; got {twice} again")
    return ids


def _pieces(ids: Sequence[int], n: int, start: int, first: int, last: int) -> Pieces:
    """Places first ... last - 1 of the queue of all samples, which holds n of each image."""
    pieces = []
    for position in range(first // n, -(-last // n)):
        begin, end = max(first - position * n, 0), min(last - position * n, n)
        pieces.append((ids[position], start + begin, end - begin))
    return pieces


def _check_memory(error: Exception, base: nn.Module, images: Tensor, batch_size: int) -> None:
    """Raises `error` again, unless it says that the memory is too small for a batch of more than one image."""
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or re.search(TOO_LARGE, str(error))
    if batch_size == 1 or not known:
        advice = other_precision(base, images) if "type" in str(error) else ""
        if advice:
            raise ValueError(f"{advice} ({error})") from error
        raise error


def _add(sums: Tensor, owner: Tensor, logits: Tensor, batch: Tensor) -> Tensor:
    """Count the rows of `logits` for the images `owner`; returns whether all are finite, on the device.

    A vote is one for the argmax, exact since counts are integers; a score is the row's softmax.
    """
    check_answers(logits, batch, sums.shape[1])
    if sums.dtype == torch.int64:
        votes = owner * sums.shape[1] + logits.argmax(1)
        sums.view(-1).scatter_add_(0, votes, torch.ones_like(votes))
    else:
        sums.index_add_(0, owner, logits.softmax(1, dtype=torch.float64))
    return logits.isfinite().all()


_hidden: weakref.WeakKeyDictionary[nn.Module, list[tuple[str, weakref.ref[nn.Module]]]] = weakref.WeakKeyDictionary()


def _check_base(base: nn.Module, images: Tensor, ids: Sequence[int], num_classes: int) -> None:
    if base not in _hidden:  # once for each f: parts in lists and closures take longer to find than a batch may take
        registered = set(map(id, base.modules()))
        hidden = ((place, part) for place, part in modules_inside(base) if id(part) not in registered)
        _hidden[base] = [(place, weakref.ref(part)) for place, part in hidden]
    parts = [*base.named_modules(), *((place, part()) for place, part in _hidden[base])]
    training = [place for place, part in parts if getattr(part, "training", False)]
    if training:
        name = f"{training[0]} of base" if training[0] else "base"
        raise ValueError(f"{name} is in training mode: call .eval() on it first, or batches would change its answers")
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        found = f"{images.dtype} {tuple(images.shape)}" if hasattr(images, "shape") else type(images).__name__
        raise ValueError(f"images must be a float tensor (N, C, H, W); got {type(images).__name__} {found}")
    low, high = torch.stack(images.aminmax()).tolist() if images.numel() else (0.0, 1.0)  # one wait for a GPU
    if not (low >= 0 and high <= 1):  # written so that NaN fails
        raise ValueError(f"images must lie in [0, 1]; got values from {low:g} to {high:g}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2; got {num_classes}")
