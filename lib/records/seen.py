"""The pixels that a file had when it was read, kept beside a record, so that a file left as it was is not read again.

`runs/x/all_0.5-1a2b3c4d.seen` has a line an image: id, key and stamp (`lib.datasets.ImageKey`), digest of the pixels.
It saves time and decides nothing: where a line is missing or damaged, or its file has been touched, pixels are read.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from lib.datasets import ImageKey

ALWAYS = 2  # images read all the same: where a library reads files otherwise than before, they all are


class Seen:
    """The digests of the pixels of `images`, as far as the file beside `log` knows them; `read` reads those of ids."""

    def __init__(self, log: Path, images: Mapping[int, ImageKey], read: Callable[[list[int]], list[str]]) -> None:
        self.path = log.with_name(log.name.removesuffix(".partial")).with_suffix(".seen")
        self.images, self.read = images, read

    def digests(self, expected: Mapping[int, str]) -> dict[int, str]:
        """What the pixels are now: read of each image, unless its file is known to hold what is `expected` of it."""
        files = [i for i in expected if self.images[i].stamp is not None]
        digests = {i: self.images[i].digest for i in expected if self.images[i].stamp is None}
        kept = self._kept(expected, files) if files else set()
        fresh = dict(zip(files[:ALWAYS], self.read(files[:ALWAYS]), strict=True))
        if any(expected[i] != digest for i, digest in fresh.items()):
            kept = set()
        missing = [i for i in files if i not in kept and i not in fresh]
        fresh |= dict(zip(missing, self.read(missing), strict=True))
        self.keep({i: digest for i, digest in fresh.items() if i not in kept})
        return digests | {i: expected[i] for i in kept} | fresh

    def keep(self, digests: Mapping[int, str]) -> None:
        """Note what was read of files; a disk that takes no line costs another reading, nothing else."""
        lines = [self._line(i, digests[i]) + "\n" for i in digests if self.images[i].stamp]
        if lines:
            with suppress(OSError), self.path.open("a") as file:
                file.write("".join(["\n", *lines]))  # half a line, of a killed writer, ends here

    def _kept(self, expected: Mapping[int, str], files: list[int]) -> set[int]:
        try:
            lines = set(self.path.read_text("latin-1").splitlines())
        except OSError:
            return set()
        return {i for i in files if self.images[i].stamp and self._line(i, expected[i]) in lines}

    def _line(self, i: int, digest: str) -> str:
        key = self.images[i]
        return f"{i}\t{key.digest}\t{key.stamp}\t{digest}"
