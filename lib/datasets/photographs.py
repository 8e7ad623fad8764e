"""Real photographs from installed packages: twenty ImageNet pictures of foolbox, open ones of scikit-image and sklearn.

They are of the extra "photos"; nothing is downloaded here, and no picture is part of this project.
"""

import hashlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

from lib.datasets.data import Data

SIDE = 224  # pixels
SHA256 = (
    "d625818dacf79cc40ced71ff12f1d4955c3d2655ae4b047b3c93b1819cb8f3fe"  # of foolbox's twenty files, one after the other
)
OPEN = (
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "astronaut.png",
    "brick.png",
    "grass.png",
    "gravel.png",
    "retina.jpg",
)
MISSING = '{what} comes with the package {package}: pip install -e ".[photos]", or make, which installs it'


def photographs() -> Data:
    """Twenty labelled pictures of ImageNet, 224 x 224, as `Data` of its 1000 classes, without training images.

    The pictures are their photographers'; foolbox carries them as examples (512 x 512, here resized, bicubic). The
    classes' names are ImageNet's first words for them. ModuleNotFoundError, saying what to install, where foolbox is
    missing; ValueError where its pictures are not those that this was made with.
    """
    from timm.data import ImageNetInfo

    folder = _folder("foolbox", "data", "the data set photographs")
    paths = sorted(folder.glob("imagenet_*_*.jpg"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    if digest != SHA256:
        raise ValueError(f"the {len(paths)} pictures in {folder} are not the twenty of foolbox 3.3.4 (SHA-256 "
                         f"{digest[:12]} instead of {SHA256[:12]})")  # fmt: skip
    labels = torch.tensor([int(path.stem.split("_")[2]) for path in paths])
    info = ImageNetInfo()
    names = tuple(f"{k} {info.index_to_description(k).split(',')[0]}" for k in range(1000))
    test = TensorDataset(torch.stack([_read(path) for path in paths]), labels)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Data("photographs", None, test, 1000, names, (3, SIDE, SIDE), mean, std, str(folder))


def open_photographs() -> TensorDataset:
    """Open photographs (CC0 or BSD) without labels, 224 x 224: those of scikit-image and scikit-learn, each label 0.

    For training denoisers and choosing settings, so that the labelled ones stay unseen; these may be printed.
    """
    images = [_read(_folder("skimage", "data", "the open photographs") / name) for name in OPEN]
    sklearn = _folder("sklearn", "datasets/images", "the open photographs")
    images += [_read(sklearn / name) for name in ("china.jpg", "flower.jpg")]
    return TensorDataset(torch.stack(images), torch.zeros(len(images)).long())


def _folder(package: str, inside: str, what: str) -> Path:
    try:
        return Path(str(files(package))) / inside
    except ModuleNotFoundError:
        distribution = {"skimage": "scikit-image", "sklearn": "scikit-learn"}.get(package, package)
        raise ModuleNotFoundError(MISSING.format(what=what, package=distribution)) from None


def _read(path: Path) -> Tensor:
    """The largest square in the middle, resized to 224 x 224: (3, 224, 224) float in [0, 1]."""
    with Image.open(path) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").crop((left, top, left + side, top + side))
        pixels = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
