"""An attack without gradients: random changes, of which those are kept that help (after Andriushchenko et al. 2020)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lib.attacks.pgd import _Ball, _one_each
from lib.bounds.arguments import whole_number


@torch.no_grad()
def random_search(
    score: Callable[[Tensor], Tensor],
    images: Tensor,
    budget: float | Tensor,
    *,
    norm: str = "linf",
    queries: int = 500,
    generator: torch.Generator | None = None,
    box: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Images at most `budget` away from `images` (N, C, H, W), inside the box, where `score` is large; only asked for.

    Each query changes a random square of each image: in linf every channel of it goes to one end of the budget, in l2
    the offset is pushed along a random direction and brought back to the budget. A change is kept where `score`, one
    value an image, rises. The squares shrink from half of the image to a pixel. After the Square attack
    (Andriushchenko et al. 2020), whose schedule and l2 windows differ. `generator`: seed 0 where none is given.
    ValueError for arguments out of range.
    """
    queries = whole_number(queries, "queries")
    ball = _Ball(images, _one_each("budget", budget, images), norm, box)
    if ball.budget.isinf().any():
        raise ValueError("random search needs a finite budget; in the box [0, 1] that of linf is at most 1")
    generator = generator or torch.Generator(images.device).manual_seed(0)
    best, highest = images, score(images)
    for query in range(queries):
        window = _windows(images, 0.5 * (1 - query / queries) ** 2, generator)
        shape = (*images.shape[:2], 1, 1) if norm == "linf" else images.shape
        random = torch.rand(shape, generator=generator, device=images.device, dtype=images.dtype) - 0.5
        limit = ball.budget.view(-1, 1, 1, 1)
        if norm == "linf":
            moved = torch.where(window, images + limit * random.sign(), best)
        else:
            direction = torch.where(window, random, 0)
            offset = best - images + limit * direction / _lengths(direction)
            moved = images + limit * offset / _lengths(offset)
        moved = ball.nearest(moved).clamp(*box)
        value = score(moved)
        better = value > highest
        best = torch.where(better.view(-1, 1, 1, 1), moved, best)
        highest = torch.where(better, value, highest)
    return best


def _windows(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A square of about `share` of the pixels, at a random place of each image: (N, 1, H, W) bool."""
    height, width = images.shape[2:]
    side = max(1, min(round(math.sqrt(share * height * width)), height, width))
    inside = []
    for pixels in (height, width):
        first = torch.randint(pixels - side + 1, (len(images), 1), generator=generator, device=images.device)
        place = torch.arange(pixels, device=images.device)
        inside.append((place >= first) & (place < first + side))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def _lengths(offsets: Tensor) -> Tensor:
    return offsets.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
