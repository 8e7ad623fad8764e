"""Datasets by name: files on the disk -> `Data` that keeps the contract, or a sentence that says what is missing."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import TensorDataset

from lib.datasets.data import Data

if TYPE_CHECKING:  # torchvision takes seconds to import, and the digits do not need it
    from lib.datasets.folders import Images

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# Mean and std a channel, in [0, 1]: of Cohen et al.'s public code (ImageNet's are torchvision's, too), and of
# the 1297 training digits.
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DIGITS_MEAN, DIGITS_STD = (0.3051,), (0.3759,)
SMALL_SIDE = 64  # pixels: a folder of images up to this side keeps its native size and is held in memory

IMAGENET_HELP = (
    "ImageNet (ILSVRC2012) needs an account at https://image-net.org: put ILSVRC2012_img_val.tar (6.3 GB), "
    "ILSVRC2012_devkit_t12.tar.gz (2.5 MB) and, to train, ILSVRC2012_img_train.tar (138 GB) into {folder!r} "
    "and run torchvision.datasets.ImageNet({folder!r}, split='val') (and split='train'): it checks their "
    "md5 and unpacks them into val/<wnid>/ and train/<wnid>/"
)


def load_dataset(name: str, data_dir: str | Path | None = None, download: bool = False) -> Data:
    """Load "digits", "cifar10", "imagenet", "photographs" (twenty of ImageNet) or "folder": any images, by class.

    A folder holds `train/<class>/…` and `test/<class>/…`, or `val/<class>/…` where there is no test/; classes are in
    alphabetical order. What in it is skipped or refused says `lib.datasets.folders`. `data_dir` defaults to
    `data/<name>`. Nothing is downloaded unless `download` is true, and then only CIFAR-10, whose md5 torchvision
    verifies. Raises ValueError for an unknown name or images that break the contract, FileNotFoundError (what to
    fetch, how large, where to put it) where the files are missing.
    """
    loaders = {
        "digits": _digits, "cifar10": _cifar10, "imagenet": _imagenet, "folder": _folder,
        "photographs": lambda folder, download: _photographs(),
    }  # fmt: skip
    if name not in loaders:
        raise ValueError(f"name must be one of {sorted(loaders)}, got name={name!r}")
    if download and name != "cifar10":
        raise ValueError(f"download=True is for 'cifar10' only, got name={name!r}")
    data = loaders[name](Path(data_dir or f"data/{name}"), download)
    for which, split in (("training", data.train), ("test", data.test)):
        _check(data, which, split)
    return data


def _photographs() -> Data:
    from lib.datasets.photographs import photographs

    return photographs()


def _digits(_: Path, __: bool) -> Data:
    """The 1797 handwritten digits that come with scikit-learn: 8x8 pixels with values 0..16."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    images = torch.from_numpy(bundled.images).float().unsqueeze(1) / 16
    labels = torch.from_numpy(bundled.target).long()
    # Neighbours in this file tend to be of one writer, so a cut in the middle would test on other writers.
    # Five of every 18 are exactly 500 test images (1797 = 99 x 18 + 15) from all over the file, every class
    # among them, without a random generator that could change between versions.
    test = torch.arange(len(labels)) % 18 < 5
    train, tested = (TensorDataset(images[side], labels[side]) for side in (~test, test))
    return Data("digits", train, tested, 10, tuple("0123456789"), (1, 8, 8), DIGITS_MEAN, DIGITS_STD)


def _cifar10(folder: Path, download: bool) -> Data:
    from torchvision.datasets import CIFAR10

    try:
        splits = [CIFAR10(folder, train=train, download=download) for train in (True, False)]
    except RuntimeError as error:
        raise FileNotFoundError(
            f"CIFAR-10 is missing or damaged in {str(folder)!r}: pass download=True (170 MB), or put "
            f"cifar-10-batches-py/ of https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz there ({error})"
        ) from error
    # Float32 takes 614 MB for the training images, four times the bytes on the disk: the price for a training
    # loop that indexes a batch on the device without converting it each time.
    train, test = (
        TensorDataset(torch.from_numpy(s.data).movedim(3, 1).contiguous() / 255, torch.tensor(s.targets))
        for s in splits
    )
    return Data("cifar10", train, test, 10, CIFAR10_CLASSES, (3, 32, 32), CIFAR10_MEAN, CIFAR10_STD, str(folder))


def _imagenet(folder: Path, _: bool) -> Data:
    if not (folder / "val").is_dir():
        raise FileNotFoundError(f"no folder {str(folder / 'val')!r}. " + IMAGENET_HELP.format(folder=str(folder)))
    _check_wnids(folder / "val")
    return _lazy("imagenet", folder, *_splits(folder, "val"))


def _check_wnids(folder: Path) -> None:
    """Labels are positions in the sorted class folders, so other names would be other labels."""
    from timm.data import ImageNetInfo

    from lib.datasets.folders import class_folders

    found, wnids = class_folders(folder), ImageNetInfo().label_names()
    if found == wnids:
        return
    if set(found) == {str(k) for k in range(len(wnids))}:
        advice = f"has the folders 0 … 999 of ImageNetV2: give k the name of the k-th, 0 is {wnids[0]}, 1 {wnids[1]}"
    else:
        wrong = sorted(set(found) ^ set(wnids))
        advice = f"has {len(found)} class folders; too many or missing: {wrong[:3]}. Load it as 'folder'"
    raise ValueError(f"ImageNet's class folders are its 1000 wnids; {str(folder)!r} {advice}")


def _folder(folder: Path, _: bool) -> Data:
    """Images up to 64 x 64 keep their size and are held in memory; larger ones are read as ImageNet's.

    Mean and std are CIFAR-10's where the class names are, else ImageNet's, which most pretrained networks
    expect.
    """
    from lib.datasets.folders import class_folders

    split = next((split for split in ("test", "val") if class_folders(folder / split)), None)
    if split is None:
        needs = "needs test/<class>/ or val/<class>/, and train/<class>/ to train"
        raise FileNotFoundError(f"{str(folder)!r} {needs}; it has {class_folders(folder)[:5]}")
    train, test = _splits(folder, split)
    size = _one_kind_of_size(train, test)
    if max(size) > SMALL_SIDE:
        _say_that_images_are_resized(folder, size)
        return _lazy("folder", folder, train, test)
    names = tuple(test.classes)
    stats = (CIFAR10_MEAN, CIFAR10_STD) if names == CIFAR10_CLASSES else (IMAGENET_MEAN, IMAGENET_STD)
    fit, shape = None if train is None else _in_memory(train), (3, size[1], size[0])
    return Data("folder", fit, _in_memory(test), len(names), names, shape, *stats, str(folder))


def _splits(folder: Path, test_split: str) -> "tuple[Images | None, Images]":
    from lib.datasets.folders import Images

    test = Images(folder / test_split)
    if not (folder / "train").is_dir():
        return None, test
    train = Images(folder / "train", random=True)
    if train.classes != test.classes:
        differ = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(f"{str(folder)!r}: train/ and {test_split}/ must hold the same classes, not {differ[:5]}")
    return train, test


def _one_kind_of_size(train: "Images | None", test: "Images") -> tuple[int, int]:
    """(width, height) of the first test image; that of train/ is the same, or both are large and will be resized."""
    sizes = {images.root: images.loader(images.samples[0][0]).size for images in (train, test) if images}
    if len(set(sizes.values())) > 1 and min(map(max, sizes.values())) <= SMALL_SIDE:
        raise ValueError(f"training and test images must have one size; the first are (width, height): {sizes}")
    return sizes[test.root]


def _say_that_images_are_resized(folder: Path, size: tuple[int, int]) -> None:
    from lib.datasets.folders import CROPPED, RESIZED

    scale = RESIZED / min(size)
    warnings.warn(
        f"{folder}: images above {SMALL_SIDE} pixels (the first is {size[0]} x {size[1]}) are resized to {RESIZED} on "
        f"the shorter side and cropped to {CROPPED} x {CROPPED}. Radii are l2 norms there: a smooth change is about "
        f"{scale:.2g} times as long as in the file",
        stacklevel=4,  # whoever calls load_dataset
    )


def _lazy(name: str, folder: Path, train: "Images | None", test: "Images") -> Data:
    """Images that are read when they are used: as tensors, ImageNet's would take 770 GB."""
    from lib.datasets.folders import CROPPED

    names, shape = tuple(test.classes), (3, CROPPED, CROPPED)
    return Data(name, train, test, len(names), names, shape, IMAGENET_MEAN, IMAGENET_STD, str(folder))


def _in_memory(images: "Images") -> TensorDataset:
    """Decode a folder of equally large images once; a file of another size is refused by its name."""
    from torchvision.transforms.functional import pil_to_tensor

    size, pixels = None, torch.empty(0)
    for index, (name, _) in enumerate(images.samples):
        image = images.loader(name)
        if size is None:
            size, pixels = image.size, torch.empty((len(images), 3, image.height, image.width))
        if image.size != size:
            raise ValueError(f"{name} has size {image.size}, the first image {size}: all must be equal")
        pixels[index] = pil_to_tensor(image)
    return TensorDataset(pixels.div_(255), torch.tensor(images.targets))


def _check(data: Data, which: str, split: Any) -> None:
    """Hold a split to the contract: shape, dtype, range, labels; of a lazy split one image is read."""
    if split is None:
        return
    if isinstance(split, TensorDataset):
        images, labels = split.tensors
    else:
        images, labels = split.for_testing()[0][0][None], torch.tensor(split.targets)
    if images.dtype != torch.float32 or tuple(images.shape[1:]) != data.image_shape:
        kind = f"{images.dtype} {tuple(images.shape[1:])}"
        raise ValueError(f"{data.name}: {which} images must be float32 {data.image_shape}, got {kind}")
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # also where a pixel is NaN
        raise ValueError(f"{data.name}: pixels of {which} images must lie in [0, 1], got [{low:.3g}, {high:.3g}]")
    known = set(range(data.num_classes))
    found = set(labels.tolist())
    if not (found < known if data.name == "photographs" else found == known):  # twenty pictures of a thousand classes
        raise ValueError(f"{data.name}: {which} labels must be 0..{data.num_classes - 1}, each of them present")
