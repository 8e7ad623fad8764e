"""The training loop: every method is this loop with another objective."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lib.datasets import augment
from lib.machine.memory import keep_memory
from lib.training.objectives import Step
from lib.training.recipe import Recipe
from lib.training.state import Diverged, State
from lib.training.weights import alone, facts_of, read_weights, seeded, seeded_build, weights_path, write_weights


def train(
    recipe: Recipe,
    build: Callable[[], nn.Module],
    dataset: Dataset,
    directory: str | Path,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> nn.Module:
    """Train what `build` makes as `recipe` says, or load it where that was done before; frozen, in eval mode.

    `dataset` yields (float image (C, H, W) in [0, 1], label). Writes weights and a .json with all that they belong to
    into `directory`, see lib.training.weights; a killed run goes on after its last whole epoch and ends with the same
    weights. Where another process trains the same, this one waits and loads what comes out. `progress` is told the
    number of epochs done. ValueError where a file of an earlier run is damaged (it is neither used nor overwritten),
    where there are no images, and where the loss is not finite: then no weights are left.
    """
    if dataset is None or (hasattr(dataset, "__len__") and len(dataset) == 0):
        raise ValueError(f"no training images: train needs a data set of images and labels, got {dataset!r}")
    if torch.device(device).type == "cpu":
        keep_memory()
    facts = facts_of(recipe, build, dataset)
    path = weights_path(directory, facts)
    model = seeded_build(recipe.seed, build).to(device)
    if not path.exists():
        with alone(path):
            if not path.exists():  # asked again: another process may have made it while this one waited
                write_weights(path, _fit(recipe, model, dataset, path, torch.device(device), progress), facts)
                path.with_suffix(".resume").unlink(missing_ok=True)
    read_weights(model, path)
    if progress:
        progress(recipe.epochs)
    model.zero_grad()  # the gradients of the last step would stay in memory
    return model.eval().requires_grad_(False)


def _fit(
    recipe: Recipe,
    model: nn.Module,
    dataset: Dataset,
    path: Path,
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> dict[str, Tensor]:
    """The trained weights. What is needed to go on after a crash is kept as <path>.resume."""
    state, resume = State(recipe, model), path.with_suffix(".resume")
    first = state.load(resume) if resume.exists() else 0
    batches = -(-len(dataset) // recipe.batch_size)
    if type(dataset) is TensorDataset:  # a class made from it may read its items otherwise
        dataset = TensorDataset(*(tensor.to(device) for tensor in dataset.tensors))
    for epoch in range(first, recipe.epochs):
        if progress:
            progress(epoch)
        try:
            with seeded(recipe.seed + 1 + epoch, device) as generator:
                for batch, (images, labels) in enumerate(_batches(dataset, recipe, generator, device)):
                    state.step(images, labels, Step(generator, epoch, batch, recipe.epochs, batches))
            state.end_epoch(epoch)
        except Diverged:
            resume.unlink(missing_ok=True)  # it would only lead here again
            raise
        state.save(resume, epoch + 1)
    return state.weights()


def _batches(
    dataset: Dataset, recipe: Recipe, generator: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order: tensors, which are on the device, are indexed; a DataLoader reads anything else."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(generator.initial_seed()))
    if type(dataset) is TensorDataset:
        batches = (dataset[rows] for rows in order.to(device).split(recipe.batch_size))
    else:
        pinned = device.type == "cuda"
        # Eight on every machine: the number of workers decides what their random crops are.
        loader = DataLoader(dataset, recipe.batch_size, sampler=order.tolist(), num_workers=8, pin_memory=pinned)
        batches = ((x.to(device, non_blocking=True), y.to(device)) for x, y in loader)
    for number, (images, labels) in enumerate(batches):
        if number == 0:
            _check_range(images)
        yield (augment(images, generator) if recipe.augment else images), labels


def _check_range(images: Tensor) -> None:
    if not images.is_floating_point() or not (images.min() >= 0 and images.max() <= 1):  # NaN fails, too
        found = f"{images.dtype} from {images.min():g} to {images.max():g}"
        raise ValueError(f"training images must be float in [0, 1], the scale of sigma; got {found}")
