"""Everything that a training is told, as one frozen dataclass. Its defaults are those of Cohen et al. on CIFAR-10."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from lib.models.compute import Compute
from lib.training.objectives import Objective

RANGES = (
    (("epochs", "batch_size", "lr_step"), "at least 1", lambda x: x >= 1),
    (("lr", "sgd_lr", "gamma"), "positive and finite", lambda x: 0 < x < math.inf),
    (("momentum", "ema"), "at least 0 and below 1", lambda x: 0 <= x < 1),
    (("weight_decay", "sgd_epoch", "seed"), "finite and at least 0", lambda x: 0 <= x < math.inf),
)

SCHEDULES = ("step", "cosine", "one-cycle")


@dataclass(frozen=True)
class Recipe:
    """How to train: the objective, and the numbers of the loop. The defaults are of Cohen et al. 2019 (experiments.MD).

    With the images and the network it decides the weights, see lib.training.weights. ValueError for a field that
    makes no sense.
    """

    objective: Objective  # what is minimised, with its own numbers
    arch: str  # name of the network, for people and for loading the file; `build` makes it
    epochs: int = 90
    batch_size: int = 256
    optimizer: str = "sgd"  # sgd, adam, or adam_then_sgd
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False  # of sgd: the gradient is taken a step ahead
    weight_decay: float = 1e-4
    # step: lr * gamma every lr_step epochs; cosine: to 0 over all epochs; one-cycle: from batch to batch, in a straight
    # line from 0 to lr over the first fifth of the training, then back to 0 (Smith and Topin 2017)
    schedule: str = "step"
    lr_step: int = 30
    gamma: float = 0.1
    sgd_epoch: int = 0  # adam_then_sgd: the first epoch of SGD, where the schedule begins anew ...
    sgd_lr: float = 1e-3  # ... and its learning rate
    ema: float = 0.0  # decay of the moving average of the weights that is kept in their place; 0 keeps the last
    augment: bool = False  # random crops and flips
    compute: str = "float32"  # as lib.models.compute has it
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.objective, Objective):
            raise ValueError(f"objective must be an Objective, such as Gaussian(0.5); got {self.objective!r}")
        for name, allowed in (("optimizer", ("sgd", "adam", "adam_then_sgd")), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}; got {getattr(self, name)!r}")
        how = Compute.parse(self.compute)
        if how.precision == "float16" or "folded" in how.options:
            raise ValueError(f"training takes neither float16 (without loss scaling) nor folded; got {self.compute!r}")
        for names, sense, fits in RANGES:
            for name in names:
                if not fits(getattr(self, name)):  # False for NaN, too
                    raise ValueError(f"{name} must be {sense}; got {getattr(self, name)}")
        if self.schedule == "one-cycle" and self.optimizer == "adam_then_sgd":
            raise ValueError("one-cycle is one rise and one fall for one optimizer: choose step for adam_then_sgd")
        if self.nesterov and not (self.momentum > 0 and self.optimizer == "sgd"):
            raise ValueError(f"nesterov needs sgd with momentum; got {self.optimizer}, momentum = {self.momentum}")
        if self.optimizer == "adam_then_sgd" and not 0 < self.sgd_epoch < self.epochs:
            raise ValueError(f"sgd_epoch must be from 1 to epochs - 1 = {self.epochs - 1}, or SGD never has its turn; "
                             f"got {self.sgd_epoch}")  # fmt: skip

    def plain(self) -> dict[str, Any]:
        """Every field as JSON knows it, the objective as its `identity()`."""
        numbers = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return numbers | {"objective": self.objective.identity()}
