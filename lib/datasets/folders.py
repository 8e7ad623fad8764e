"""Folders of images by class, read when they are used: which files count, how each is read and refused."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision import transforms as T
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

RESIZED, CROPPED = 256, 224  # pixels, of Cohen et al.'s public code for ImageNet
# 8 bits a channel and a known colour. Not I;16, I and F: whether 65535, 4095 or 1.0 is white, the file does not say.
MODES = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LA", "PA", "RGBA")


class Images(ImageFolder):
    """The images in root/<class>/, classes and files in alphabetical order, as RGB.

    Hidden folders and files (`.ipynb_checkpoints`, `._0.png`) and files that are no images are skipped.
    FileNotFoundError for a folder without classes or a class without images; ValueError for fewer than two
    classes, a folder inside a class, and a format that would be left out (.gif).
    """

    def __init__(self, root: Path, random: bool = False) -> None:
        super().__init__(str(root), transform(random), loader=read_image)
        if len(self.classes) < 2:
            raise ValueError(f"{root} needs at least two class folders; it has only {self.classes}")
        firsts: dict[int, str] = {}
        for path, label in self.samples:
            firsts.setdefault(label, path)
        for path in firsts.values():  # a whole set of the wrong kind is seen before anything long starts
            opened(path).close()

    def for_testing(self) -> "Images":
        """The same images without random crops."""
        plain = copy.copy(self)
        plain.transform = transform(random=False)
        return plain

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """torchvision's hook: the class folders and their labels."""
        classes = class_folders(directory)
        if not classes:
            raise FileNotFoundError(f"{directory} has no class folders: put the images into {directory}/<class>/")
        return classes, {name: label for label, name in enumerate(classes)}

    @staticmethod
    def make_dataset(directory: str | Path, class_to_idx: dict[str, int], *_: Any, **__: Any) -> list[tuple[str, int]]:
        """torchvision's hook: (path, label) of every image."""
        samples = []
        for name, label in class_to_idx.items():
            files = sorted(_files(Path(directory, name)))
            if not files:
                raise FileNotFoundError(f"{Path(directory, name)} has no images: fill it, or delete it")
            samples += [(file, label) for file in files]
        return samples


def class_folders(root: str | Path) -> list[str]:
    """The names of the folders in `root` that are not hidden, in alphabetical order; none where it is no folder."""
    if not Path(root).is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))


def transform(random: bool) -> T.Compose:
    """Random crop and flip to train, Resize 256 and CenterCrop 224 to test (Cohen et al.'s public code)."""
    train = (T.RandomResizedCrop(CROPPED), T.RandomHorizontalFlip())
    return T.Compose([*(train if random else (T.Resize(RESIZED), T.CenterCrop(CROPPED))), T.ToTensor()])


def read_image(path: str) -> Image.Image:
    """The image as RGB; ValueError, with the file's name, for one that is damaged or whose colours are not certain."""
    with opened(path) as image:
        try:
            if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                raise ValueError("it has transparent pixels, whose colour nobody sees: put it on a background")
            return image.convert("RGB")
        except Exception as error:  # decoders of damaged files raise whatever they meet
            raise ValueError(f"{path} cannot be read as an image: {error}") from error


def opened(path: str) -> Image.Image:
    """The image with its header read; ValueError, with the file's name, if that shows that it is of no use."""
    try:
        image = Image.open(path)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    if image.mode not in MODES:
        image.close()
        raise ValueError(f"{path} has pixels of mode {image.mode}, whose white is unknown: save it with 8 bits")
    return image


def _files(folder: Path) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            raise ValueError(f"{entry.path} is a folder inside a class: put its images into {folder}, or beside it")
        if entry.name.lower().endswith(IMG_EXTENSIONS):
            yield entry.path
        elif kind := _format(entry.path):
            raise ValueError(f"{entry.path} would be left out: save it as .png, it is {kind}")


def _format(path: str) -> str | None:
    """Of a file that is not named as an image: what it is all the same."""
    try:
        with Image.open(path) as image:
            return image.format
    except Exception:  # whatever Pillow says of a file that is none of its own
        return None
