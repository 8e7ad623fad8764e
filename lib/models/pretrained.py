"""Any classifier of timm or torchvision as a base classifier: "timm:NAME" and "torchvision:NAME".

Such a network comes with an input contract of its own (size, mean and std, the order of its classes).
`PretrainedClassifier` keeps it inside the module, so that outside it takes images in [0, 1] like every other
classifier of the kit.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.datasets import Data
from lib.models.checkpoints import check_finite, read_checkpoint
from lib.models.classifiers import Normalize
from lib.models.fitting import load_weights

PREFIXES = ("timm:", "torchvision:")


@dataclass(frozen=True)
class InputContract:
    """What a pretrained network was trained on: (H, W) in pixels, and its normalisation's mean and std."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class PretrainedClassifier(nn.Module):
    """Resize (bicubic, antialiased) -> normalise -> network -> the logits of the data's classes.

    Images of the contract's size are not touched. Bicubic interpolation may leave [0, 1] by a little; as in
    the public code of Carlini et al. (2023) the result is not clipped. `label_map[j]` is the network's index
    of the data's class j.
    """

    def __init__(self, network: nn.Module, contract: InputContract, label_map: Sequence[int] | None = None) -> None:
        super().__init__()
        self.size = contract.size
        self.normalize = Normalize(contract.mean, contract.std)
        self.network = network
        index = None if label_map is None else torch.tensor(label_map)
        self.register_buffer("label_map", index, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != self.size:
            images = F.interpolate(images, self.size, mode="bicubic", antialias=True)
        logits = self.network(self.normalize(images))
        return logits if self.label_map is None else logits[:, self.label_map]


def build_pretrained(name: str, data: Data) -> PretrainedClassifier:
    """The network `name` with random weights and one output a class of the data, to be trained here."""
    network, contract = _create(name, None, data.num_classes)
    return _checked(PretrainedClassifier(network, contract), name, data)


def load_pretrained(
    name: str,
    data: Data,
    weights: str | Path = "published",
    label_map: Sequence[int] | str | None = None,
) -> PretrainedClassifier:
    """The network `name` with trained weights, checked against the data.

    `weights` is a file, and then nothing is downloaded; or "published" for the library's own, or one of
    torchvision's sets by its name ("IMAGENET1K_V1" is what the papers used), which the library downloads.
    `label_map` says which of the network's classes are the data's: the indices (a list, tuple, array or tensor),
    entry j for the data's class j; "wnid" where the data's class names are ImageNet's ids (n01440764, …) and the
    network has ImageNet's 1000 classes; None where both have the same classes in the same order. Raises ValueError
    where network and data do not fit together, ConnectionError where weights cannot be downloaded.
    """
    indices = _resolve(label_map, data)
    if Path(weights).suffix:
        network, contract = _create(name, None, data.num_classes if label_map is None else None)
        load_weights(network, read_checkpoint(weights), name)
    else:
        network, contract = _create(name, str(weights), None)
        check_finite(network.state_dict(), name)
    return _checked(PretrainedClassifier(network, contract, indices), name, data)


def _create(name: str, weights: str | None, num_classes: int | None) -> tuple[nn.Module, InputContract]:
    """Build the network and read its contract; `num_classes` None keeps the published number."""
    library, _, model = name.partition(":")
    head = {} if num_classes is None else {"num_classes": num_classes}
    if library == "timm":
        return _create_timm(model, weights, head)
    return _create_torchvision(model, weights, head)


def _create_timm(model: str, weights: str | None, head: dict) -> tuple[nn.Module, InputContract]:
    import timm
    from timm.data import resolve_model_data_config

    if weights not in (None, "published"):
        raise ValueError(f"timm's weights are part of the name ('timm:resnet18.a1_in1k'), got weights={weights!r}")
    try:
        create = partial(timm.create_model, model, pretrained=weights is not None, **head)
        network = create() if weights is None else _downloaded(create, f"timm:{model}")
    except RuntimeError as error:
        raise ValueError(f"timm has no model {model!r} or no weights for it: {error}") from error
    config = resolve_model_data_config(network)
    size = tuple(config["input_size"][1:])
    return network, InputContract(size, tuple(config["mean"]), tuple(config["std"]))


def _create_torchvision(model: str, weights: str | None, head: dict) -> tuple[nn.Module, InputContract]:
    from torchvision import models

    if model not in models.list_models(module=models):
        raise ValueError(f"torchvision has no classifier {model!r}")
    sets = models.get_model_weights(model)
    names = [member.name for member in sets]
    if weights not in (None, "published", *names):
        raise ValueError(f"torchvision:{model} has weights {names}, got weights={weights!r}")
    chosen = sets.DEFAULT if weights in (None, "published") else sets[weights]
    create = partial(models.get_model, model, weights=None if weights is None else chosen, **head)
    network = create() if weights is None else _downloaded(create, f"torchvision:{model}")
    preset = chosen.transforms()
    return network, InputContract((preset.crop_size[0],) * 2, tuple(preset.mean), tuple(preset.std))


def _downloaded(create: Callable[[], nn.Module], name: str) -> nn.Module:
    """What `create` makes with weights from the network or the local cache."""
    try:
        return create()
    except RuntimeError as error:
        if "hash" not in str(error):  # torchvision's word for a broken download
            raise
        raise _unreachable(name, error) from error
    except Exception as error:  # urllib, requests, httpx and huggingface_hub have an error each
        raise _unreachable(name, error) from error


def _unreachable(name: str, error: Exception) -> ConnectionError:
    return ConnectionError(
        f"the weights of {name} are not in the local cache and could not be downloaded "
        f"({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no reason given'}). Run this "
        f"once with a network, or fetch the file elsewhere and pass weights=FILE (in a notebook {name}@FILE)"
    )


def _resolve(label_map: Sequence[int] | str | None, data: Data) -> list[int] | None:
    if label_map is None:
        return None
    if isinstance(label_map, str) and label_map == "wnid":
        return _imagenet_indices(data)
    indices = _whole_numbers(label_map)
    if indices is None or len(indices) != data.num_classes or len(set(indices)) != len(indices):
        raise ValueError(
            f"label_map must be 'wnid' or a list of {data.num_classes} different whole numbers, entry j the network's "
            f"index of {data.name}'s class j; got {type(label_map).__name__} {str(label_map)[:120]}"
        )
    return indices


def _whole_numbers(label_map: object) -> list[int] | None:
    """A flat list, tuple, range, array or tensor of whole numbers as a list; None for anything else."""
    if isinstance(label_map, (str, bytes, Mapping, Set)):  # a dict is a map, but whose keys are which classes?
        return None
    try:
        array = np.asarray(label_map.tolist() if isinstance(label_map, Tensor) else label_map)
    except ValueError:  # lists of unequal lengths
        return None
    return array.tolist() if array.ndim == 1 and array.dtype.kind in "iu" else None


def _imagenet_indices(data: Data) -> list[int]:
    from timm.data import ImageNetInfo

    index = {wnid: i for i, wnid in enumerate(ImageNetInfo().label_names())}
    unknown = [name for name in data.class_names if name not in index]
    if unknown:
        raise ValueError(f"label_map='wnid' needs ImageNet ids (n01440764, …) as class names, got {unknown[:5]}")
    return [index[name] for name in data.class_names]


def _checked(classifier: PretrainedClassifier, name: str, data: Data) -> PretrainedClassifier:
    """Send one image through: channels, size and classes of the network must be the data's."""
    channels = data.image_shape[0]
    if channels != len(classifier.normalize.mean):
        raise ValueError(f"{name} takes {len(classifier.normalize.mean)} channels, {data.name} has {channels}")
    classifier.eval()
    with torch.no_grad():  # not inference_mode: some networks cache tensors, which autograd must be able to use
        raw = classifier.network(torch.zeros(1, channels, *classifier.size))
    label_map = classifier.label_map
    if label_map is None and raw.shape != (1, data.num_classes):
        raise ValueError(
            f"{name} has {raw.shape[-1]} classes, {data.name} has {data.num_classes}: pass label_map, the "
            f"network's index of each of {data.name}'s classes ('wnid' where their names are ImageNet ids)"
        )
    if label_map is not None and not 0 <= int(label_map.min()) <= int(label_map.max()) < raw.shape[-1]:
        raise ValueError(f"label_map must hold indices 0..{raw.shape[-1] - 1} of {name}, got {label_map.tolist()[:12]}")
    return classifier
