"""Any classifier of timm or torchvision as a base classifier: "timm:NAME" and "torchvision:NAME".

Such a network comes with an input contract of its own (size, mean and std, the order of its classes).
`PretrainedClassifier` keeps it inside the module, so that outside it takes images in [0, 1] like every other
classifier of the kit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.datasets import Data
from lib.models.checkpoints import load_weights, read_checkpoint
from lib.models.classifiers import Normalize

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
    `label_map` says which of the network's classes are the data's: a list of indices; "wnid" where the data's
    class names are ImageNet's ids (n01440764, …) and the network has ImageNet's 1000 classes; None where both
    have the same classes in the same order. Raises ValueError where network and data do not fit together.
    """
    if Path(weights).suffix:
        network, contract = _create(name, None, data.num_classes if label_map is None else None)
        load_weights(network, read_checkpoint(weights), name)
    else:
        network, contract = _create(name, str(weights), None)
    return _checked(PretrainedClassifier(network, contract, _resolve(label_map, data)), name, data)


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
        network = timm.create_model(model, pretrained=weights is not None, **head)
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
    network = models.get_model(model, weights=None if weights is None else chosen, **head)
    preset = chosen.transforms()
    return network, InputContract((preset.crop_size[0],) * 2, tuple(preset.mean), tuple(preset.std))


def _resolve(label_map: Sequence[int] | str | None, data: Data) -> list[int] | None:
    if label_map is None:
        return None
    if label_map != "wnid":
        if isinstance(label_map, str) or len(set(label_map)) != data.num_classes:
            raise ValueError(f"label_map must be 'wnid' or {data.num_classes} different indices, got {label_map=}")
        return list(label_map)
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
