"""Adaptive sampling in a few rounds of given sizes, for one radius (Horvath et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lib.bounds.arguments import whole_number
from lib.bounds.stopping import AtRadii


@dataclass(frozen=True, kw_only=True)
class Rounds(AtRadii):
    """Stop an image at the end of a round if it is settled whether it is certified at `radii`: one radius, as a rule.

    `sizes`: the fresh samples of each round, cut off at the certificate's n, which is the last look (Horvath et al.
    2022, the authors' code: 1,000, 10,000, 125,000). They bound each round by itself, at alpha over the number of
    rounds, and says only whether the one radius was reached; here the rounds' votes are pooled under the bound that
    holds at every look, so each image gets a radius, and `AtRadii` alone, which looks more often, stops sooner.
    `growth` is not used. ValueError for sizes that are no whole numbers >= 1.
    """

    sizes: tuple[int, ...] = (1_000, 10_000, 125_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.sizes, (list, tuple)) or not self.sizes:
            raise ValueError(f"sizes must be a list such as (1000, 10_000); got {self.sizes!r}")
        object.__setattr__(self, "sizes", tuple(whole_number(size, "sizes") for size in self.sizes))

    def looks(self, n: int) -> Iterator[int]:
        seen = 0
        for size in self.sizes:
            seen += size
            if seen < n:
                yield seen
        yield n
