"""Training on images and on squeezed versions of them, so that a classifier can be asked about both."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.training.objectives.base import Objective, Step, cross_entropy


@dataclass(frozen=True)
class SqueezedViews(Objective):
    """Cross-entropy of each image and of each of its versions, mean over all; without `squeezers`: ordinary training.

    Feature squeezing (Xu et al. 2018) leaves f as it is, which on 8 x 8 pixels does not work: a median takes strokes
    away. `squeezers`: images -> images, without weights.
    """

    squeezers: tuple[nn.Module, ...] = ()

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        views = [images, *(squeeze(images) for squeeze in self.squeezers)]
        return cross_entropy(model(torch.cat(views)), torch.cat([labels] * len(views)), step)
