"""How many noisy images go through f at once: a number that the caller gives, or the one that proves fastest.

The fastest is found out on the samples of the run itself, so no pass is made for it: batches of one size after another
are timed, each twice the one before, until larger ones are slower. Short calls go on where the last one stopped.
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor, nn

from lib.bounds.arguments import whole_number
from lib.words import AUTO

TRIES = 2  # batches of a size that are timed: the first of a size may have to make room for itself
# Pixels in the first batch. A CPU is fast while activations stay in its cache, and small batches cost it little; a GPU
# is fast once it is full, and small batches leave it waiting for the launch of kernels.
FIRST = {"cpu": 3 * 2**15, "other": 2**22}
LARGEST = {"cpu": 2**12, "other": 2**14}  # images; beyond, the noise alone would fill the memory


class Pace:
    """The batch size of one f for images of one shape on one device.

    `size` is the best one known. `plan` says what the next batches should be, `took` is told how long they took.
    """

    def __init__(self, size: int, largest: int, searching: bool) -> None:
        self.size, self.largest, self.searching = size, largest, searching
        self._rung, self._misses, self._warm = size, 0, False
        self._seconds: dict[int, list[float]] = {}  # size -> seconds a sample of each batch of it

    def plan(self, left: int) -> tuple[int, bool]:
        """(size of the next batches, whether to time them) where `left` samples are left to be done.

        A size is tried where few of the samples left would be lost if it were slow: bolder while larger sizes gain.
        """
        if self.searching and self._rung * (16 if self._misses else 4) <= left:
            return self._rung, True
        return self.size, False

    def took(self, size: int, seconds: float) -> None:
        """Batches of `size`, timed, took so many seconds a sample at best."""
        if not self._warm:  # the first batches of a process wake threads and fetch memory
            self._warm = True
            return
        known = {rung: min(times) for rung, times in self._seconds.items() if rung != size}
        times = self._seconds.setdefault(size, [])
        times.append(seconds)
        ratio = min(times) / min(known.values()) if known else 0.0
        if ratio < 0.99:
            self.size, self._misses = size, 0
        else:
            self._misses += 1
            if len(times) == 1:
                return  # another process may have been in the way: once more
        self._rung = 2 * size
        self.searching = self._rung <= self.largest and self._misses < 4 and ratio < 1.1

    def halve(self, size: int) -> int:
        """Half of a `size` for which the memory did not suffice: none larger is tried again."""
        self.largest, self.searching = size // 2, False
        self.size = min(self.size, self.largest)
        return self.size


def pace_of(base: nn.Module, images: Tensor, batch_size: int | str) -> Pace:
    """The pace for `batch_size`: a whole number, or "auto", which goes on with what earlier calls found out for `base`.

    It belongs to the module, the shape and type of the images, their device and torch's number of threads. ValueError
    for anything else.
    """
    if not isinstance(checked_batch_size(batch_size), str):
        size = whole_number(batch_size, "batch_size")
        return Pace(size, size, searching=False)
    key = (images.shape[1:], images.dtype, images.device, torch.get_num_threads())
    paces = _KNOWN.setdefault(base, {})
    if key not in paces:
        kind = "cpu" if images.device.type == "cpu" else "other"
        rows = max(4, FIRST[kind] // max(1, images.shape[1:].numel()))
        size = min(LARGEST[kind], 1 << (rows.bit_length() - 1))
        paces[key] = Pace(size, LARGEST[kind], searching=not _compiled(base))
    return paces[key]


def checked_batch_size(batch_size: object) -> int | str:
    """`batch_size` as an int, or "auto". ValueError for anything else."""
    if isinstance(batch_size, str):
        if batch_size != AUTO:
            raise ValueError(f'batch_size must be a whole number >= 1 or "auto"; got {batch_size!r:.80}')
        return batch_size
    return whole_number(batch_size, "batch_size")


def found(base: nn.Module) -> list[int]:
    """The sizes that "auto" has come to for `base` in this process, of images of whatever kind; [] for none."""
    return sorted({pace.size for pace in _KNOWN.get(base, {}).values()})


def _compiled(base: nn.Module) -> bool:
    """Whether torch.compile takes part in `base`, by the words of lib.models.compute or by the user's own call.

    Each size would be a compilation, so such a base keeps the first.
    """
    words = str(getattr(base, "compute", ""))
    inside = (vars(module).get("_compiled_call_impl") or "_orig_mod" in module._modules for module in base.modules())
    return "compiled" in words or "cuda-graphs" in words or any(inside)


_KNOWN: weakref.WeakKeyDictionary[nn.Module, dict[tuple, Pace]] = weakref.WeakKeyDictionary()
