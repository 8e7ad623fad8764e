"""The exercises of notebook 00: what is right, and the mistakes that people make, each with its sentence."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.exercises.exercise import Exercise


@dataclass(frozen=True)
class Named:
    """A function that says its name, for lines about a case."""

    name: str
    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)

    def __repr__(self) -> str:
        return self.name


def step(x: Tensor, gradient: Tensor, start: Tensor, budget: float, size: float) -> Tensor:
    """One step of PGD in linf, in the ball round `start` and in [0, 1]."""
    return _into(x + size * gradient.sign(), start, budget).clamp(0, 1)


def _into(x: Tensor, centre: Tensor, budget: float) -> Tensor:
    return torch.minimum(torch.maximum(x, centre - budget), centre + budget)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest other logit less that of the label, (N,)."""
    own = logits.gather(1, labels[:, None])[:, 0]
    return logits.scatter(1, labels[:, None], -math.inf).amax(1) - own


def gradient_through(gradient: Callable[[Tensor], Tensor], squeeze: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """BPDA: that of f at the squeezed image, as if squeezing did nothing on the way back."""
    return gradient(squeeze(x))


def _steps() -> list[tuple[Tensor, Tensor, Tensor, float, float]]:
    start = torch.tensor([0.5, 0.5, 0.98, 0.1, 0.5])
    return [
        (start.clone(), torch.tensor([2.0, -0.3, 1.0, -4.0, 0.0]), start, 0.2, 0.05),
        (torch.tensor([0.68, 0.3, 1.0, 0.0, 0.6]), torch.tensor([1.0, -1.0, 0.5, -0.5, -2.0]), start, 0.2, 0.05),
        (torch.tensor([0.53, 0.48, 0.95, 0.1, 0.5]), torch.tensor([1.0, -1.0, 0.5, -0.5, 2.0]), start, 0.05, 0.2),
    ]


def _margins() -> list[tuple[Tensor, Tensor]]:
    logits = torch.tensor([[3.0, 1.0, -2.0], [0.5, 2.5, 4.0], [-1.0, -3.0, -5.0]])
    return [(logits, torch.tensor([0, 1, 0])), (logits, torch.tensor([2, 2, 1]))]


def _squeezed() -> list[tuple[Named, Named, Tensor]]:
    gradient = Named("gradient", lambda x: 2 * x + 0.25)
    return [(gradient, Named("squeeze", torch.round), torch.tensor([0.1, 0.4, 0.7, 0.9]))]


EXERCISES = [
    Exercise(
        name="00.step",
        minutes=10,
        difficulty="medium",
        truth=step,
        cases=_steps,
        mistakes={
            "It goes downhill; the attack makes the loss larger, so add the step.": (
                lambda x, gradient, start, budget, size: step(x, -gradient, start, budget, size)
            ),
            "It steps along the gradient itself; in l_inf every pixel moves by the whole step: take the sign.": (
                lambda x, gradient, start, budget, size: _into(x + size * gradient, start, budget).clamp(0, 1)
            ),
            "It leaves the ball: no pixel may be further than the budget from where it started.": (
                lambda x, gradient, start, budget, size: (x + size * gradient.sign()).clamp(0, 1)
            ),
            "It keeps near x; the ball lies round the start.": (
                lambda x, gradient, start, budget, size: step(x, gradient, x, budget, size)
            ),
            "It leaves the box: pixels lie in [0, 1].": (
                lambda x, gradient, start, budget, size: _into(x + size * gradient.sign(), start, budget)
            ),
            "Every step is as long as the budget; that is FGSM, here it is the size of a step.": (
                lambda x, gradient, start, budget, size: step(x, gradient, start, budget, budget)
            ),
        },
    ),
    Exercise(
        name="00.margin",
        minutes=10,
        difficulty="medium",
        truth=margin,
        cases=_margins,
        mistakes={
            "The sign is the other way round: the attack makes it large, so it has to grow as f errs.": (
                lambda logits, labels: -margin(logits, labels)
            ),
            "The maximum has the label's own logit in it, so it never falls below 0; leave that one out.": (
                lambda logits, labels: logits.amax(1) - logits.gather(1, labels[:, None])[:, 0]
            ),
            "This is the cross-entropy, with the softmax that we want to be rid of.": (
                lambda logits, labels: F.cross_entropy(logits, labels, reduction="none")
            ),
            "These are margins of probabilities; take the logits themselves.": (
                lambda logits, labels: margin(logits.softmax(1), labels)
            ),
            "This is one number, the mean; an attack needs one for each image.": (
                lambda logits, labels: margin(logits, labels).mean()
            ),
        },
    ),
    Exercise(
        name="00.bpda",
        minutes=5,
        difficulty="easy",
        truth=gradient_through,
        cases=_squeezed,
        mistakes={
            "This forgets the squeezing: f never sees x, so ask for its gradient at squeeze(x).": (
                lambda gradient, squeeze, x: gradient(x)
            ),
            "This squeezes the gradient; squeeze the image on the way forward.": (
                lambda gradient, squeeze, x: squeeze(gradient(x))
            ),
            "This is the true derivative of the rounding, zero; BPDA puts 1 in its place.": (
                lambda gradient, squeeze, x: 0 * gradient(squeeze(x))
            ),
        },
    ),
    Exercise(
        name="00.rank",
        minutes=5,
        difficulty="easy",
        truth=lambda: math.ceil(1297 * 0.95) - 1,
        mistakes={
            "This counts from 1; Python counts from 0.": lambda: math.ceil(1297 * 0.95),
            "Rounded down this lets more than one in twenty be flagged; round up first.": lambda: int(1297 * 0.95) - 1,
            "This is the rank from the wrong end: the small distances are the innocent ones.": lambda: (
                math.ceil(1297 * 0.05) - 1
            ),
            "A rank is a whole number: round up, then count from 0.": lambda: 1297 * 0.95 - 1,
        },
    ),
]  # fmt: skip
