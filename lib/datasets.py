"""The images that are certified: digits, CIFAR-10, ImageNet or a folder of images by class.

Every dataset yields (float32 tensor (C, H, W) in [0, 1], int label). Normalisation is the classifier's first
layer and never happens here, because the noise of randomized smoothing is added in this scale.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

if TYPE_CHECKING:  # torchvision takes seconds to import, and the digits do not need it
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose

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


@dataclass(frozen=True)
class Data:
    """A dataset and what a classifier must know about it.

    `train` is None where only the test images are on the disk: certifying needs no others. `image_shape` is
    (C, H, W); `mean` and `std` have one value a channel, in [0, 1] pixel units.
    """

    name: str
    train: Dataset | None
    test: Dataset
    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str = ""  # of images that the name does not tell: a folder's

    @property
    def identity(self) -> str:
        """What records and recipes call the images, so that those of another folder are never taken for them."""
        return f"{self.name} {self.fingerprint}".strip()


def load_dataset(name: str, data_dir: str | Path | None = None, download: bool = False) -> Data:
    """Load "digits", "cifar10", "imagenet" or "folder": any images, sorted by class.

    A folder holds `train/<class>/…` and `test/<class>/…` (or `val/<class>/…`); classes are in alphabetical
    order. `data_dir` defaults to `data/<name>`. Nothing is downloaded unless `download` is true, and then
    only CIFAR-10, whose md5 torchvision verifies. Raises ValueError for an unknown name or images that break
    the contract, FileNotFoundError (what to fetch, how large, where to put it) where the files are missing.
    """
    loaders = {"digits": _digits, "cifar10": _cifar10, "imagenet": _imagenet, "folder": _folder}
    if name not in loaders:
        raise ValueError(f"name must be one of {sorted(loaders)}, got name={name!r}")
    if download and name != "cifar10":
        raise ValueError(f"download=True is for 'cifar10' only, got name={name!r}")
    data = loaders[name](Path(data_dir or f"data/{name}"), download)
    for split in (data.train, data.test):
        _check(data, split)
    return data


def fixed_subset(length: int, skip: int = 1, limit: int | None = None) -> list[int]:
    """Indices 0, skip, 2 skip, …: the papers' subsets (every 20th of CIFAR-10, every 100th of ImageNet).

    `limit` is how many images are kept. (In the public code `--max` is compared with the raw index, so that
    `--skip 20 --max 500` means 25 images there and 500 here.)
    """
    if length < 1 or skip < 1 or (limit is not None and limit < 1):
        raise ValueError(f"length, skip and limit must be at least 1, got {length=}, {skip=}, {limit=}")
    return list(range(0, length, skip))[:limit]


def holdout(train: Dataset, size: int | float, seed: int) -> tuple[Dataset, Dataset]:
    """Split training images into (fit, held_out), disjoint: models are chosen without a look at test images.

    `size` is a number of images, or a fraction in (0, 1). The same seed gives the same split on every
    machine. Tensors stay tensors; of an ImageFolder, the held-out images are seen with the test transform.
    """
    count = round(size * len(train)) if isinstance(size, float) else size
    if not 0 < count < len(train):
        raise ValueError(f"size must leave images on both sides of {len(train)} training images, got {size=}")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    held_out, fit = order[:count].sort().values, order[count:].sort().values
    if isinstance(train, TensorDataset):
        return TensorDataset(*train[fit]), TensorDataset(*train[held_out])
    plain = copy.copy(train)
    plain.transform = _transform(random=False)
    return Subset(train, fit.tolist()), Subset(plain, held_out.tolist())


def stack(dataset: Dataset, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images `ids` of a data set as one batch: (N, C, H, W) float, (N,) int64."""
    if isinstance(dataset, TensorDataset):
        return dataset[list(ids)]
    images, labels = zip(*(dataset[i] for i in ids), strict=True)
    return torch.stack(images), torch.tensor(labels)


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
    splits = (TensorDataset(images[side], labels[side]) for side in (~test, test))
    return Data("digits", *splits, 10, tuple("0123456789"), (1, 8, 8), DIGITS_MEAN, DIGITS_STD)


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
    tensors = (
        TensorDataset(torch.from_numpy(s.data).movedim(3, 1).contiguous() / 255, torch.tensor(s.targets))
        for s in splits
    )
    return Data("cifar10", *tensors, 10, CIFAR10_CLASSES, (3, 32, 32), CIFAR10_MEAN, CIFAR10_STD)


def _imagenet(folder: Path, _: bool) -> Data:
    if not (folder / "val").is_dir():
        raise FileNotFoundError(f"no folder {str(folder / 'val')!r}. " + IMAGENET_HELP.format(folder=str(folder)))
    data = _lazy("imagenet", *_image_folders(folder, "val"))
    if data.num_classes != 1000:
        raise ValueError(f"ImageNet has 1000 classes, {str(folder)!r} has {data.num_classes}: load it as 'folder'")
    return data


def _folder(folder: Path, _: bool) -> Data:
    """Images up to 64 x 64 keep their size and are held in memory; larger ones are read as ImageNet's.

    Mean and std are CIFAR-10's where the class names are, else ImageNet's, which most pretrained networks
    expect.
    """
    split = next((split for split in ("test", "val") if (folder / split).is_dir()), None)
    if split is None:
        raise FileNotFoundError(f"{str(folder)!r} needs test/<class>/ or val/<class>/, and train/<class>/ to train")
    train, test = _image_folders(folder, split)
    width, height = test[0][0].size
    if max(width, height) > SMALL_SIDE:
        return replace(_lazy("folder", train, test), fingerprint=_fingerprint_of_files(train, test))
    names = tuple(test.classes)
    stats = (CIFAR10_MEAN, CIFAR10_STD) if names == CIFAR10_CLASSES else (IMAGENET_MEAN, IMAGENET_STD)
    tensors = [None if images is None else _in_memory(images) for images in (train, test)]
    return Data("folder", *tensors, len(names), names, (3, height, width), *stats, _fingerprint(*tensors))


def _fingerprint(*splits: TensorDataset | None) -> str:
    """Of pixels and labels."""
    digest = hashlib.sha256()
    for split in splits:
        for tensor in split.tensors if split else ():
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy())
    return digest.hexdigest()[:12]


def _fingerprint_of_files(*splits: "ImageFolder | None") -> str:
    """Of names and sizes: reading every pixel of a large set would take as long as using it."""
    paths = [(Path(path), split.root) for split in splits if split for path, _ in split.samples]
    files = [(path.relative_to(root).as_posix(), path.stat().st_size) for path, root in paths]
    return hashlib.sha256(repr(files).encode()).hexdigest()[:12]


def _image_folders(folder: Path, test_split: str) -> "tuple[ImageFolder | None, ImageFolder]":
    from torchvision.datasets import ImageFolder

    test = ImageFolder(folder / test_split)
    if not (folder / "train").is_dir():
        return None, test
    train = ImageFolder(folder / "train")
    if train.classes != test.classes:
        differ = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(f"{str(folder)!r}: train/ and {test_split}/ must hold the same classes, not {differ[:5]}")
    return train, test


def _lazy(name: str, train: "ImageFolder | None", test: "ImageFolder") -> Data:
    """Images that are read when they are used: as tensors, ImageNet's would take 770 GB."""
    test.transform = _transform(random=False)
    if train is not None:
        train.transform = _transform(random=True)
    names = tuple(test.classes)
    return Data(name, train, test, len(names), names, (3, 224, 224), IMAGENET_MEAN, IMAGENET_STD)


def _transform(random: bool) -> "Compose":
    """Random crop and flip to train, Resize 256 and CenterCrop 224 to test (Cohen et al.'s public code)."""
    from torchvision import transforms as T

    crop = (T.RandomResizedCrop(224), T.RandomHorizontalFlip()) if random else (T.Resize(256), T.CenterCrop(224))
    return T.Compose([*crop, T.ToTensor()])


def _in_memory(images: "ImageFolder") -> TensorDataset:
    """Decode a folder of equally large images once; a file of another size is refused by its name."""
    from torchvision.transforms.functional import pil_to_tensor

    size = images[0][0].size
    pixels = torch.empty((len(images), 3, size[1], size[0]))
    for index, (image, _) in enumerate(images):
        if image.size != size:
            name = images.samples[index][0]
            raise ValueError(f"{name} has size {image.size}, the first image {size}: all must be equal")
        pixels[index] = pil_to_tensor(image)
    return TensorDataset(pixels.div_(255), torch.tensor(images.targets))


def _check(data: Data, split: Dataset | None) -> None:
    """Hold a split to the contract: shape, dtype, range, labels; of a lazy split one image is read."""
    if split is None:
        return
    images, labels = split.tensors if isinstance(split, TensorDataset) else (split[0][0][None], split.targets)
    if images.dtype != torch.float32 or tuple(images.shape[1:]) != data.image_shape:
        found = f"{images.dtype} {tuple(images.shape[1:])}"
        raise ValueError(f"{data.name}: images must be float32 {data.image_shape}, got {found}")
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # also where a pixel is NaN
        raise ValueError(f"{data.name}: pixels must lie in [0, 1], got [{low:.3g}, {high:.3g}]")
    if torch.as_tensor(labels).unique().tolist() != list(range(data.num_classes)):
        raise ValueError(f"{data.name}: labels must be 0..{data.num_classes - 1}, each of them present")
