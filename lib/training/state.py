"""A network in training with all that must be kept to go on: optimizer, schedule, moving average, and the loss seen."""

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, StepLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lib.machine.files import atomic_write
from lib.models.compute import Compute
from lib.training.objectives import Step
from lib.training.recipe import Recipe


class Diverged(ValueError):
    """Training that has come to a loss, or to weights, that are no finite numbers."""


class State:
    """The model, trained in place, with its optimizer and schedule, and the moving average if the recipe has one."""

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        self.recipe, self.how = recipe, Compute.parse(recipe.compute)
        self.model = self.how.lay_out(model.train())
        self.forward = self.how.compile(self.model)  # shares the weights
        self.unseen: tuple[Step, Tensor, torch.cuda.Event | None] | None = None
        self.average = None
        if recipe.ema:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
        self._optimize(recipe.optimizer != "sgd", recipe.lr, recipe.epochs)

    def _optimize(self, adam: bool, lr: float, epochs: int) -> None:
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = _optimizer(self.recipe, trainable, adam, lr)
        self.schedule = _schedule(self.recipe, self.optimizer, epochs)

    def step(self, images: Tensor, labels: Tensor, at: Step) -> None:
        """One optimizer step on a batch. Diverged where the loss of the batch before was not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.recipe.schedule == "one-cycle":
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.lr * one_cycle((at.epoch + at.batch / at.batches) / at.epochs)
        with self.how.settings():
            with self.how.autocast(images.device):
                loss = self.recipe.objective(self.forward, self.how.lay_out(images), labels, at)
            loss.backward()
        self._look()  # at the last one: asking for this one now would let a GPU run dry
        self.unseen = at, loss.detach().to("cpu", non_blocking=True), _copied(loss)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def _look(self) -> None:
        if self.unseen is not None:
            at, loss, copied = self.unseen
            if copied:
                copied.synchronize()
            if not loss.isfinite():
                raise self._diverged(f"the loss is {loss.item()} in epoch {at.epoch}, batch {at.batch} (from 0)")
        self.unseen = None

    def end_epoch(self, epoch: int) -> None:
        """Next learning rate; AdamThenSGD changes the optimizer here. Diverged for weights that are not finite."""
        self._look()
        wrong = [name for name, tensor in self.weights().items() if not tensor.isfinite().all()]
        if wrong:
            raise self._diverged(f"after epoch {epoch} (from 0) the weights {wrong[:3]} are not finite")
        self.schedule.step()
        if epoch + 1 == self._first_of_sgd():
            self._to_sgd()

    def _diverged(self, what: str) -> Diverged:
        recipe = self.recipe
        rates = f"lr = {recipe.lr:g}" + f" and sgd_lr = {recipe.sgd_lr:g}" * (recipe.optimizer == "adam_then_sgd")
        return Diverged(f"training of {recipe.arch} diverged: {what}. Lower {rates} (try a tenth), and look for NaN in "
                        "the images or the weights it starts from")  # fmt: skip

    def _first_of_sgd(self) -> int:
        return self.recipe.sgd_epoch if self.recipe.optimizer == "adam_then_sgd" else -1

    def _to_sgd(self) -> None:
        self._optimize(False, self.recipe.sgd_lr, self.recipe.epochs - self.recipe.sgd_epoch)

    def weights(self) -> dict[str, Tensor]:
        """The weights to keep."""
        return (self.model if self.average is None else self.average.module).state_dict()

    def save(self, path: Path, epochs_done: int) -> None:
        """Write all of it, atomically."""
        average = None if self.average is None else self.average.state_dict()
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                 "schedule": self.schedule.state_dict(), "average": average, "epochs_done": epochs_done}  # fmt: skip
        buffer = io.BytesIO()
        torch.save(parts, buffer)
        data = buffer.getvalue()
        atomic_write(path, hashlib.sha256(data).digest() + data)  # torch.load would not notice a changed byte

    def load(self, path: Path) -> int:
        """Take all of it up again; returns the number of epochs done."""
        data = path.read_bytes()
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            raise ValueError(f"{path} is damaged: its SHA-256 is wrong. Delete it to train from the first epoch")
        # On the CPU: load_state_dict moves what belongs on the device, not Adam's counters: each step would wait there.
        parts = torch.load(io.BytesIO(data[32:]), map_location="cpu", weights_only=True)
        self.model.load_state_dict(parts["model"])
        if self.average is not None:
            self.average.load_state_dict(parts["average"])
        if parts["epochs_done"] >= self._first_of_sgd() > 0:
            self._to_sgd()
        self.optimizer.load_state_dict(parts["optimizer"])
        self.schedule.load_state_dict(parts["schedule"])
        return parts["epochs_done"]


def _copied(loss: Tensor) -> torch.cuda.Event | None:
    """What tells, on a GPU, that the copy of the loss is there, without waiting for what was queued later."""
    if not loss.is_cuda:
        return None
    event = torch.cuda.Event()
    event.record()
    return event


def _optimizer(recipe: Recipe, parameters: list[nn.Parameter], adam: bool, lr: float) -> Optimizer:
    if adam:
        return Adam(parameters, lr, weight_decay=recipe.weight_decay)
    return SGD(parameters, lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov)


def one_cycle(done: float, rising: float = 0.2) -> float:
    """The share of the largest rate when the share `done` of the training is over: up to 1 at `rising`, then to 0."""
    return done / rising if done < rising else (1 - done) / (1 - rising)


def _schedule(recipe: Recipe, optimizer: Optimizer, epochs: int) -> LRScheduler:
    if recipe.schedule == "one-cycle":
        return LambdaLR(optimizer, lambda epoch: 1.0)  # `step` sets the rate, from batch to batch
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, epochs)
    return StepLR(optimizer, recipe.lr_step, recipe.gamma)
