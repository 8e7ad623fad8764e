"""Images out of a dataset: the papers' subsets, held-out images, batches by index, random crops."""

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from lib.bounds.arguments import whole_number


def fixed_subset(length: int, skip: int = 1, limit: int | None = None) -> list[int]:
    """Indices 0, skip, 2 skip, …: the papers' subsets (every 20th of CIFAR-10, every 100th of ImageNet).

    `limit` is how many images are kept. (In the public code `--max` is compared with the raw index, so that
    `--skip 20 --max 500` means 25 images there and 500 here.)
    """
    indices = range(0, whole_number(length, "length"), whole_number(skip, "skip"))
    return list(indices)[: None if limit is None else whole_number(limit, "limit")]


def holdout(train: Dataset | None, size: int | float, seed: int) -> tuple[Dataset, Dataset]:
    """Split training images into (fit, held_out), disjoint: models are chosen without a look at test images.

    `size` is a number of images, or a fraction in (0, 1). The same seed gives the same split on every
    machine. Tensors stay tensors; of a folder of large images, the held-out ones are seen with the test transform.
    """
    if train is None:
        raise ValueError("train is None: there are no images to split; add train/<class>/ to the data's folder")
    total = len(train)  # type: ignore[arg-type]
    share = size if isinstance(size, float) and 0 < size < 1 else None
    count = round(share * total) if share else whole_number(size, "size") if not isinstance(size, float) else 0
    if not 0 < count < total:
        raise ValueError(f"size must leave images on both sides of {total} training images, got {size=}")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    held_out, fit = order[:count].sort().values, order[count:].sort().values
    if type(train) is TensorDataset:
        return TensorDataset(*train[fit]), TensorDataset(*train[held_out])
    return Subset(train, fit.tolist()), Subset(_not_augmented(train), held_out.tolist())


def stack(dataset: Dataset | Mapping[int, tuple[Tensor, int]], ids: Iterable[int]) -> tuple[Tensor, Tensor]:
    """Images `ids` of a dataset, or of a mapping {id: (image, label)}, as one batch: (N, C, H, W), (N,) int64.

    `ids`: whole numbers of any kind, at least one, each below the dataset's length; one may come twice.
    ValueError, with the reason, for others, and for items that are no (image tensor, whole-number label).
    """
    ids = checked_ids(dataset, whole_numbers(ids, "ids"))
    if type(dataset) is TensorDataset:
        return _rows(dataset, ids)
    images, labels = zip(*(_item(dataset, i) for i in ids), strict=True)
    shapes = {tuple(image.shape): i for image, i in zip(images, ids)}
    if len(shapes) > 1:
        raise ValueError(f"images of one batch must have one shape; got {shapes} (shape: id)")
    return torch.stack(images), torch.tensor(labels)


def whole_numbers(values: Iterable[int], name: str) -> list[int]:
    """`values` (list, range, array, tensor, Series) as Python integers; ValueError for all else, masks too."""
    values = values.tolist() if hasattr(values, "tolist") else values
    try:
        listed = list(values)
        if any(isinstance(value, bool | np.bool_) for value in listed):
            raise TypeError
        return [operator.index(value) for value in listed]
    except TypeError:
        raise ValueError(f"{name} must be a list of whole numbers, such as [0, 20, 40]; got {values!r:.80}") from None


def augment(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Random crop after zero padding and random flip, drawn for each image (Cohen et al.'s CIFAR-10 recipe).

    `images` is (N, C, H, W) and the generator lives on the same device, so a batch never leaves the
    accelerator.
    """
    n, _, height, width = images.shape
    device = images.device
    shift = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator, device=device)
    rows = shift[0] + torch.arange(height, device=device)  # (N, H)
    columns = shift[1] + torch.arange(width, device=device)  # (N, W)
    flip = torch.randint(0, 2, (n, 1), generator=generator, device=device).bool()
    columns = torch.where(flip, columns.flip(1), columns)
    padded = F.pad(images, (padding,) * 4).movedim(1, 3)  # (N, H + 2p, W + 2p, C): indices stand together
    sample = torch.arange(n, device=device)[:, None, None]
    return padded[sample, rows[:, :, None], columns[:, None, :]].movedim(3, 1).contiguous()


def _not_augmented(dataset: Any) -> Dataset:
    """The same images without random crops, where the kit has put these."""
    if type(dataset) is Subset:
        return Subset(_not_augmented(dataset.dataset), dataset.indices)
    return dataset.for_testing() if hasattr(dataset, "for_testing") else dataset


def checked_ids(dataset: Any, ids: list[int]) -> list[int]:
    """`ids`; ValueError where there are none, or where `dataset` lacks one."""
    if not ids:
        raise ValueError("ids must name at least one image; got none")
    if isinstance(dataset, Mapping):
        unknown = [i for i in ids if i not in dataset]
    else:
        unknown = [i for i in ids if not 0 <= i < len(dataset)] if hasattr(dataset, "__len__") else []
    if unknown:
        raise ValueError(f"ids must be images of the dataset, which has {len(dataset)}; got {unknown[:5]}")
    return ids


def _rows(dataset: TensorDataset, ids: list[int]) -> tuple[Tensor, Tensor]:
    if len(dataset.tensors) != 2:
        raise ValueError(f"a TensorDataset must hold (images, labels); got {len(dataset.tensors)} tensors")
    images, labels = dataset.tensors
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        got = f"{labels.dtype} {tuple(labels.shape)}"
        raise ValueError(f"labels must be whole numbers (N,), one an image: labels.long(), not one-hot; got {got}")
    return images[ids], labels[ids].long()


def _item(dataset: Any, i: int) -> tuple[Tensor, int]:
    item = dataset[i]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise ValueError(f"item {i} must be a pair (image, label); got {type(item).__name__}: wrap the dataset")
    image, label = item
    if not isinstance(image, Tensor | np.ndarray):
        advice = "transform=torchvision.transforms.ToTensor()"
        raise ValueError(f"image {i} must be a tensor (C, H, W) in [0, 1]; got {type(image).__name__}: {advice}")
    return torch.as_tensor(image), whole_label(label, i)


def whole_label(label: Any, i: int) -> int:
    """The label of image `i`; ValueError, with its value, for what is no whole number."""
    try:
        return operator.index(label)
    except TypeError:
        raise ValueError(f"the label of image {i} must be a whole number; got {label!r:.80}") from None
