"""Defensive distillation (Papernot et al. 2016): a heuristic defense, which hides gradients."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.training.objectives.base import Objective, Step, cross_entropy


@dataclass(frozen=True)
class Distillation(Objective):
    """Cross-entropy of softmax(z / T) to the label, or with a `teacher` to softmax(z_teacher / T), mean over images.

    Papernot et al. 2016, where T is 100 for CIFAR-10: the teacher is trained without one, the student, of the same
    architecture, with it, and answers at T = 1, where its softmax saturates. T = 1 without a teacher is ordinary
    training. ValueError for T that is not positive, and for a teacher that training would change.
    """

    temperature: float  # T
    teacher: nn.Module | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite; got {self.temperature!r}")
        parts = () if self.teacher is None else self.teacher.modules()
        if any(part.training for part in parts) or any(p.requires_grad for part in parts for p in part.parameters()):
            raise ValueError("teacher would be trained, too: call .eval().requires_grad_(False) on it first")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        logits = model(images) / self.temperature
        if self.teacher is None:
            return cross_entropy(logits, labels, step)
        with torch.no_grad():
            soft = (self.teacher(images) / self.temperature).softmax(1)
        return F.cross_entropy(logits, soft)
