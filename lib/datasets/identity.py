"""What a dataset is, as a hash: of its pixels, labels and order, whatever it is called."""

import hashlib
import operator
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from lib.datasets.batches import checked_ids, stack, whole_label, whole_numbers

CHUNK = 64  # images read at once: 40 MB of 224 x 224 pixels
YOUNG = 2_000_000_000  # nanoseconds: a file may change twice within one tick of a file system's clock


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 (64 hex digits) of what `dataset` holds, in its order; the same in every process.

    Of tensors: shapes, dtypes, bytes. Of a torchvision ImageFolder: files' names and sizes, labels, loader and
    transforms, since reading every pixel would take as long as using it. Of a Subset: its indices and its
    dataset. Of another dataset: its own `identity()` if it has one, else every item, read as `stack` reads it.
    ValueError for a dataset that has no length or whose items differ from one reading to the next.
    """
    digest = hashlib.sha256()
    for part in _parts(dataset):
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


class ImageKey(NamedTuple):
    """What tells an image of a dataset from others: 16 hex digits of its pixels and label, and the label.

    Where `stamp` is no None, the digits are of a file's name, size, label and reading instead, and `stamp`, of its
    times and its place on the disk, tells whether it is still the same file; "" where it is too young to tell.
    """

    digest: str
    label: int
    stamp: str | None = None


def image_keys(
    dataset: Dataset | Mapping[int, tuple[Tensor, int]], ids: Iterable[int], num_classes: int | None = None
) -> dict[int, ImageKey]:
    """For each image of `ids`: 16 hex digits of the SHA-256 of shape, dtype, pixels and label; and the label.

    Image and label are those of `stack`, so an image has the same digest in a tensor or a chunk of it. Read in
    chunks: memory does not grow with the number of `ids`. A torchvision ImageFolder, or a part of one, is told by the
    files' names and sizes, as `fingerprint` does: of 50,000 images eight are read.
    ValueError where an image is another one when it is read again and, where num_classes is given, for a label outside
    0 ... num_classes - 1 and for pixels outside [0, 1].
    """
    ids = whole_numbers(ids, "ids")
    keys = file_keys(dataset, ids, num_classes)
    if keys is None:
        read = list(_digests(dataset, ids, num_classes))
        keys, read = {i: ImageKey(digest[:16], label) for i, digest, label in read}, read[:2]
    else:
        read = list(_digests(dataset, ids[:8], num_classes))
    if list(_digests(dataset, ids[: len(read)], num_classes)) != read:
        raise ValueError(f"{type(dataset).__name__} gives other images each time: take its random transform away")
    return keys


def file_keys(dataset: Any, ids: Iterable[int], num_classes: int | None = None) -> dict[int, ImageKey] | None:
    """The keys of images that files and their names tell, none of them read; None for any other dataset."""
    ids = whole_numbers(ids, "ids")
    folder, parts = dataset, []
    while type(folder) is Subset:
        parts.append(folder.indices)
        folder = folder.dataset
    if not _is_image_folder(folder) or not _told_by_name(folder) or "Random" in (how := _how(folder)):
        return None
    places, keys, now = checked_ids(dataset, ids), {}, time.time_ns()
    for indices in parts:
        places = [operator.index(indices[place]) for place in places]
    for i, place in zip(ids, places, strict=True):
        path, label = folder.samples[place]
        file = os.stat(path)
        label = whole_label(folder.target_transform(label) if folder.target_transform else label, i)
        _check_label(i, label, num_classes)
        text = f"{how} {_name(folder, path)} {file.st_size} {label}"
        old = now - max(file.st_mtime_ns, file.st_ctime_ns) > YOUNG
        stamp = f"{file.st_mtime_ns}-{file.st_ctime_ns}-{file.st_ino}" if old else ""
        keys[i] = ImageKey(hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16], label, stamp)
    return keys


def image_digests(dataset: Dataset | Mapping[int, tuple[Tensor, int]], ids: Iterable[int]) -> list[str]:
    """16 hex digits of the SHA-256 of shape, dtype, pixels and label of each of `ids`, all of them read."""
    return [digest[:16] for _, digest, _ in _digests(dataset, whole_numbers(ids, "ids"))]


def _parts(dataset: Any) -> Iterator[Any]:
    own, kind = getattr(dataset, "identity", None), type(dataset)
    if callable(own):
        yield f"{kind.__qualname__} {own()}"
    elif kind is TensorDataset:
        for tensor in dataset.tensors:
            yield f"tensor {tuple(tensor.shape)} {tensor.dtype} "
            yield _bytes(tensor)
    elif kind is Subset:
        yield f"subset {[operator.index(i) for i in dataset.indices]} of {fingerprint(dataset.dataset)}"
    elif _is_image_folder(dataset) and _told_by_name(dataset):
        yield f"folder {_how(dataset)} {_files(dataset)}"
    else:
        yield from _items(dataset)


def _items(dataset: Any) -> Iterator[str]:
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        advice = "give it a method identity() that returns a text"
        raise ValueError(f"dataset must have a length and items (image, label); got {type(dataset).__name__}: {advice}")
    ids = list(dataset) if isinstance(dataset, Mapping) else list(range(len(dataset)))
    first = ids[:8]
    if list(_digests(dataset, first)) != list(_digests(dataset, first)):
        advice = "take the transform away, or give it a method identity() that returns a text"
        raise ValueError(f"{type(dataset).__name__} gives other images each time (a random transform?): {advice}")
    for i, digest, _ in _digests(dataset, ids):
        yield f"item {i} {digest} "


def _digests(dataset: Any, ids: list[int], num_classes: int | None = None) -> Iterator[tuple[int, str, int]]:
    """(id, digest, label) of each image."""
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        images, labels = stack(dataset, chunk)
        for i, image, label in zip(chunk, images, labels.tolist(), strict=True):
            _check_label(i, label, num_classes)
            if num_classes is not None and not (image.min() >= 0 and image.max() <= 1):  # False for NaN, too
                found = f"{image.min():g} to {image.max():g}"
                raise ValueError(f"images must lie in [0, 1]; image {i} has values from {found}")
            digest = hashlib.sha256(f"{tuple(image.shape)} {image.dtype} {label} ".encode())
            digest.update(_bytes(image))
            yield i, digest.hexdigest(), label


def _check_label(i: int, label: int, num_classes: int | None) -> None:
    if num_classes is not None and not 0 <= label < num_classes:
        advice = "images without labels are certified by SmoothedClassifier.certify"
        raise ValueError(f"label of image {i} must lie in 0 ... {num_classes - 1}; got {label} ({advice})")


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _is_image_folder(dataset: object) -> bool:
    """Without importing torchvision, which takes seconds: where nobody has, there is no such dataset."""
    datasets = sys.modules.get("torchvision.datasets")
    return (
        datasets is not None
        and isinstance(dataset, datasets.ImageFolder)
        and type(dataset).__getitem__ is datasets.ImageFolder.__getitem__
    )


def _told_by_name(folder: Any) -> bool:
    """Whether loader and transforms are of known libraries, which print what they do, and not functions."""
    steps = [getattr(folder.transform, "transforms", [folder.transform]), [folder.target_transform]]
    homes = [type(step).__module__.partition(".")[0] for part in steps for step in part]
    return set(homes) <= {"torchvision", "builtins"} and not re.search("<|0x|Lambda", _how(folder))


def _how(folder: Any) -> str:
    """What happens to an image between the file and the tensor."""
    loader = getattr(folder.loader, "__qualname__", repr(folder.loader))
    return f"{loader} {folder.transform!r} {folder.target_transform!r}"


def _files(folder: Any) -> list[tuple[str, int, int]]:
    """Name relative to the folder, size in bytes, label."""
    return [(_name(folder, path), os.stat(path).st_size, label) for path, label in folder.samples]


def _name(folder: Any, path: str) -> str:
    return Path(path).relative_to(folder.root).as_posix()
