"""The files of trained weights: what they belong to, and how they are written and read.

Weights belong to all that decides them: the recipe with its objective, the images and labels in their order, the
network and what is in it when training starts, and the loop. Their file is named by a hash of these, so that what was
trained otherwise is never taken for them, and an unchanged training costs nothing the second time.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import Dataset

from lib.datasets import fingerprint
from lib.machine.files import atomic_write
from lib.models.identity import identity
from lib.training.recipe import Recipe

LOOP = "2"  # raise it where lib/training, or what it calls, comes to other weights from the same recipe and images


def facts_of(recipe: Recipe, build: Callable[[], nn.Module], dataset: Dataset) -> dict[str, Any]:
    """All that weights belong to, in plain values.

    The network is built with two seeds. What is alike in both, as are weights to be fine-tuned, is where training
    starts, and counts byte by byte; what the seed draws is told by its shape and the recipe's seed, since the last
    bits of random numbers differ between kinds of machines.
    """
    network, other = (seeded_build(seed, build) for seed in (recipe.seed, recipe.seed ^ 1))
    if network is other:
        raise ValueError(
            "build must make a new network each time, or a second training would start from the first's end"
        )
    given, drawn = dict(_tensors(network)), dict(_tensors(other))
    start = hashlib.sha256()
    for name in sorted(given):
        if torch.equal(given[name], drawn[name]):
            start.update(f"{name} {given[name].dtype} ".encode())
            start.update(given[name].contiguous().reshape(-1).view(torch.uint8).numpy())
        else:  # how it is drawn, but for the last digits
            start.update(f"{name} {given[name].float().std(correction=0):.1e} ".encode())
    learned = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    return {
        "recipe": recipe.plain(),
        "images": fingerprint(dataset),
        "network": {
            "class": type(network).__name__,
            "structure": identity(network, weights=False),
            "learned": hashlib.sha256(repr(learned).encode()).hexdigest(),
        },
        "starts_from": start.hexdigest(),
        "loop": LOOP,
    }


def weights_path(directory: str | Path, facts: dict[str, Any]) -> Path:
    """<directory>/<12 digits of the SHA-256 of the facts>.safetensors."""
    text = json.dumps(facts, sort_keys=True)
    return Path(directory) / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.safetensors"


def write_weights(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """A safetensors file that names its architecture, and a .json beside it with the facts and the file's SHA-256."""
    # Copies: safetensors does not take weights that share memory, as tied ones do.
    tensors = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    data = safetensors.torch.save(tensors, {"arch": facts["recipe"]["arch"]})
    facts = facts | {"sha256": hashlib.sha256(data).hexdigest()}
    atomic_write(path.with_suffix(".json"), json.dumps(facts, indent=2, sort_keys=True) + "\n")
    atomic_write(path, data)


def read_weights(model: nn.Module, path: Path) -> None:
    """Put the weights of `path` into `model`. ValueError where they are not what was written, or do not fit."""
    data, facts = path.read_bytes(), path.with_suffix(".json")
    try:
        written = json.loads(facts.read_text()).get("sha256") if facts.exists() else None
        if written and hashlib.sha256(data).hexdigest() != written:
            raise ValueError(f"its SHA-256 is not the one in {facts.name}")
        model.load_state_dict(safetensors.torch.load(data))
    except (ValueError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be used: {error}. Restore it, or delete it to train again") from None


@contextmanager
def alone(path: Path) -> Iterator[None]:
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


def seeded_build(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """A network whose initial weights the seed decides."""
    with seeded(seed, torch.device("cpu")):
        return build()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """A generator on `device`; torch's own, which dropout and initialisation use, are seeded and then restored."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)  # of this one alone: the others would not be restored
        yield torch.Generator(device).manual_seed(seed)


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        yield name, tensor.detach().cpu()
