"""Everything that decides weights, as one frozen dataclass whose hash names their file."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from lib.models.compute import Compute


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights. The defaults are those of Cohen et al. 2019 on CIFAR-10 (experiments.MD)."""

    objective: str  # its name and arguments in words; the function itself is passed to `train`
    dataset: str
    arch: str
    sigma: float
    epochs: int = 90
    batch_size: int = 256
    optimizer: str = "sgd"  # sgd, adam, or adam_then_sgd
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "step"  # step: lr * gamma every lr_step epochs; cosine: to 0 over all epochs
    lr_step: int = 30
    gamma: float = 0.1
    sgd_epoch: int = 0  # adam_then_sgd: the first epoch of SGD ...
    sgd_lr: float = 1e-3  # ... and its learning rate
    ema: float = 0.0  # decay of the moving average of the weights that is kept in their place; 0 keeps the last
    augment: bool = False  # random crops and flips
    compute: str = "float32"  # as lib.models.compute has it
    seed: int = 0
    starts_from: str = ""  # hash of the weights that training starts from
    frozen: tuple[str, ...] = ()  # hashes of the networks that the objective looks through

    def __post_init__(self) -> None:
        for name, allowed in (("optimizer", ("sgd", "adam", "adam_then_sgd")), ("schedule", ("step", "cosine"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}; got {getattr(self, name)!r}")
        how = Compute.parse(self.compute)
        if how.precision == "float16" or "folded" in how.options:
            raise ValueError(f"training takes neither float16 (without loss scaling) nor folded; got {self.compute!r}")
        if min(self.epochs, self.batch_size, self.lr_step) < 1 or self.sigma < 0 or self.lr <= 0:
            raise ValueError(f"epochs, batch_size, lr_step and lr must be positive, sigma at least 0; got {self}")

    @property
    def hash(self) -> str:
        """Twelve hex digits of the SHA-256 of every field."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
