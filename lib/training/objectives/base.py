"""What an objective is, and where in the training it is asked."""

import dataclasses
import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.training.identity import code_hash, note_code, plain


@dataclass(frozen=True)
class Step:
    """Where training stands. Every random draw of an objective comes from `generator`, which is on the images' device.

    It is seeded anew in each epoch, so a run that was killed and goes on at an epoch draws the same numbers again.
    """

    generator: torch.Generator
    epoch: int = 0  # from 0
    batch: int = 0  # number within the epoch, from 0
    epochs: int = 1  # passes over the data in all
    batches: int = 1  # in an epoch


class Objective:
    """What a method minimises. A method is one subclass, a frozen dataclass whose fields decide all that it computes.

    A method with m noisy copies of an image makes them inside `__call__`. Papers that cut a batch of N images into m
    steps of N / m images with m copies each are N / m as the recipe's batch_size.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        note_code(cls)

    def __post_init__(self) -> None:
        sigma = getattr(self, "sigma", 0.0)  # the noise level, in every method that has one
        if not (isinstance(sigma, Real) and 0 <= sigma < math.inf):
            raise ValueError(f"sigma must be a finite number, at least 0; got {sigma!r}")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        """The scalar to minimise on one batch: images (N, C, H, W) in [0, 1], labels (N,) as the data set has them."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(self, model, images, labels, step)")

    def identity(self) -> dict[str, Any]:
        """Class, fields and a hash of the code, in JSON values: what trained weights belong to.

        A network among the fields is its hash. ValueError for state that is no field, and for a field's value that
        cannot be told apart from others.
        """
        fields = {field.name for field in dataclasses.fields(self)} if dataclasses.is_dataclass(self) else set()
        if hidden := sorted(vars(self).keys() - fields):
            raise ValueError(f"{type(self).__name__} keeps {hidden} outside its fields: make it a frozen dataclass "
                             "with a field for each")  # fmt: skip
        values = {name: plain(getattr(self, name), f"{type(self).__name__}.{name}") for name in sorted(fields)}
        return {"class": type(self).__name__, "fields": values, "code": code_hash(type(self))}


def add_noise(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """x + N(0, sigma^2 I), not clipped."""
    return images + sigma * torch.randn(images.shape, generator=generator, device=images.device)


def cross_entropy(logits: Tensor, labels: Tensor, step: Step) -> Tensor:
    """Mean cross-entropy to class labels 0 ... K-1; in the first epoch ValueError for any other.

    torch would skip a label of -100, and on a GPU one outside takes down the process without saying which. Asking
    costs a wait for the GPU, so labels are looked at once, while the first epoch runs.
    """
    if step.epoch == 0:
        classes = logits.shape[1]
        if labels.is_floating_point() or labels.ndim != 1 or ((labels < 0) | (labels >= classes)).any():
            raise ValueError(f"labels must be whole numbers (N,) from 0 to {classes - 1}, one of the network's "
                             f"{classes} classes; got {labels.unique().tolist()[:8]}")  # fmt: skip
    return F.cross_entropy(logits, labels.long())
