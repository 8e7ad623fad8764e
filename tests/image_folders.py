"""Folders of small random images, sorted by class, for the tests of datasets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_images(root: Path, split: str, classes: Sequence[str], size: tuple[int, int], count: int = 3) -> np.ndarray:
    """PNG files (lossless) of random pixels, `count` a class; returns the pixels in the loader's order."""
    rng = np.random.default_rng(7)
    pixels = rng.integers(0, 256, (len(classes) * count, size[1], size[0], 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        folder = root / split / classes[index // count]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index % count:04d}.png")
    return pixels


def write_folder(root: Path, size: tuple[int, int] = (8, 8), splits: Sequence[str] = ("train", "test")) -> Path:
    """`root` with three ants and three bees in each split."""
    for split in splits:
        write_images(root, split, ["ant", "bee"], size)
    return root
