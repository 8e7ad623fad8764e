"""The training loop: every method is this loop with another objective.

Weights are a function of the recipe (and of the machine's floating point). They are kept under the recipe's hash, so an
unchanged recipe costs nothing the second time and a changed one never overwrites another's weights.
"""

import dataclasses
import hashlib
import io
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lib.datasets import augment
from lib.machine.files import atomic_write
from lib.models.compute import Compute
from lib.training.objectives import Objective
from lib.training.recipe import Recipe


def train(
    recipe: Recipe,
    build: Callable[[], nn.Module],
    objective: Objective,
    dataset: Dataset,
    directory: str | Path,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> nn.Module:
    """Train what `build` makes as `recipe` says, or load it where that was done before; frozen, in eval mode.

    `dataset` yields (float image (C, H, W) in [0, 1], label). Writes <directory>/<recipe.hash>.safetensors and a
    .json with the recipe beside it; a killed run goes on after its last whole epoch and ends with the same weights.
    Where another process is training the recipe, this one waits and loads what comes out. `progress` is told the number
    of epochs done. ValueError where a file of an earlier run is damaged: it is neither used nor overwritten.
    """
    path = Path(directory) / f"{recipe.hash}.safetensors"
    model = _seeded_build(recipe, build).to(device)
    if not path.exists():
        with _alone(path):
            if not path.exists():  # asked again: another process may have made it while this one waited
                _fit(recipe, model, objective, dataset, path, torch.device(device), progress)
    _load(model, path)
    model.zero_grad()  # the gradients of the last step would stay in memory
    return model.eval().requires_grad_(False)


def _fit(
    recipe: Recipe,
    model: nn.Module,
    objective: Objective,
    dataset: Dataset,
    path: Path,
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> None:
    started = time.monotonic()
    state = _State(recipe, model)
    resume = path.with_suffix(".resume")
    first = state.load(resume, device) if resume.exists() else 0
    for epoch in range(first, recipe.epochs):
        with _seeded(recipe.seed + 1 + epoch, device) as generator:
            for images, labels in _batches(dataset, recipe, generator, device):
                state.step(objective, images, labels, generator)
        state.end_epoch(epoch)
        state.save(resume, epoch + 1)
        if progress:
            progress(epoch + 1)
    data = safetensors.torch.save({k: v.contiguous() for k, v in state.weights().items()})
    facts = {"recipe": dataclasses.asdict(recipe), "sha256": hashlib.sha256(data).hexdigest(),
             "seconds_of_last_process": round(time.monotonic() - started, 1)}  # fmt: skip
    atomic_write(path.with_suffix(".json"), json.dumps(facts, indent=2, sort_keys=True) + "\n")
    atomic_write(path, data)
    resume.unlink(missing_ok=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time: a second one waits here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        warnings.warn(f"{path} is being trained by another process; waiting for it", stacklevel=4)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
        if path.exists():
            Path(lock.lock_file).unlink(missing_ok=True)


def _load(model: nn.Module, path: Path) -> None:
    """Put the weights of `path` into `model`. ValueError where they are not what was written, or do not fit."""
    data, facts = path.read_bytes(), path.with_suffix(".json")
    try:
        written = json.loads(facts.read_text()).get("sha256") if facts.exists() else None
        if written and hashlib.sha256(data).hexdigest() != written:
            raise ValueError(f"its SHA-256 is not the one in {facts.name}")
        model.load_state_dict(safetensors.torch.load(data))
    except (ValueError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be used: {error}. Restore it, or delete it to train again") from None


class _State:
    """The model with what training keeps beside it: optimizer, schedule, moving average."""

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        self.recipe, self.how = recipe, Compute.parse(recipe.compute)
        self.model = self.how.lay_out(model.train())
        self.forward = self.how.compile(self.model)  # shares the weights
        self.average = None
        if recipe.ema:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
        self._optimize(recipe.optimizer != "sgd", recipe.lr)

    def _optimize(self, adam: bool, lr: float) -> None:
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = _optimizer(self.recipe, trainable, adam, lr)
        self.schedule = _schedule(self.recipe, self.optimizer)

    def step(self, objective: Objective, images: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        """One optimizer step on a batch."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.how.settings():
            with self.how.autocast(images.device):
                loss = objective(self.forward, self.how.lay_out(images), labels, generator)
            loss.backward()
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def end_epoch(self, epoch: int) -> None:
        """Next learning rate; AdamThenSGD changes the optimizer here, at the epoch that the recipe names."""
        self.schedule.step()
        if self.recipe.optimizer == "adam_then_sgd" and epoch + 1 == self.recipe.sgd_epoch:
            self._optimize(False, self.recipe.sgd_lr)

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

    def load(self, path: Path, device: torch.device) -> int:
        """Take all of it up again; returns the number of epochs done."""
        data = path.read_bytes()
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            raise ValueError(f"{path} is damaged: its SHA-256 is wrong. Delete it to train from the first epoch")
        parts = torch.load(io.BytesIO(data[32:]), map_location=device, weights_only=True)
        self.model.load_state_dict(parts["model"])
        if self.average is not None:
            self.average.load_state_dict(parts["average"])
        if self.recipe.optimizer == "adam_then_sgd" and parts["epochs_done"] >= self.recipe.sgd_epoch > 0:
            self._optimize(False, self.recipe.sgd_lr)
        self.optimizer.load_state_dict(parts["optimizer"])
        self.schedule.load_state_dict(parts["schedule"])
        return parts["epochs_done"]


def _optimizer(recipe: Recipe, parameters: list[nn.Parameter], adam: bool, lr: float) -> Optimizer:
    if adam:
        return Adam(parameters, lr, weight_decay=recipe.weight_decay)
    return SGD(parameters, lr, recipe.momentum, weight_decay=recipe.weight_decay)


def _schedule(recipe: Recipe, optimizer: Optimizer) -> LRScheduler:
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, recipe.epochs)
    return StepLR(optimizer, recipe.lr_step, recipe.gamma)


def _batches(
    dataset: Dataset, recipe: Recipe, generator: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order: tensors are indexed on the device, anything else is read by a DataLoader."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(generator.initial_seed()))
    if isinstance(dataset, TensorDataset):
        all_images, all_labels = (tensor.to(device) for tensor in dataset.tensors)
        batches = ((all_images[rows], all_labels[rows]) for rows in order.to(device).split(recipe.batch_size))
    else:
        loader = DataLoader(dataset, recipe.batch_size, sampler=order.tolist(), num_workers=8, pin_memory=True)
        batches = ((x.to(device, non_blocking=True), y.to(device)) for x, y in loader)
    for images, labels in batches:
        yield (augment(images, generator) if recipe.augment else images), labels


def _seeded_build(recipe: Recipe, build: Callable[[], nn.Module]) -> nn.Module:
    with _seeded(recipe.seed, torch.device("cpu")):
        return build()


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """A generator on `device`; torch's own, which dropout and initialisation use, are seeded and then restored."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield torch.Generator(device).manual_seed(seed)
