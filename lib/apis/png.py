"""From a noisy image to the bytes that are sent: part of f, so it is fixed and lossless."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def encoded(images: Tensor, side: int) -> list[bytes]:
    """Each image (N, C, H, W) as PNG: clipped to [0, 1], 8 bits, enlarged by the smallest whole factor that makes its
    shorter side at least `side` pixels; grey images become RGB, which every service takes.

    Clipping and rounding lose some of the noise. That is a fixed function of the noisy image, so the certificate holds.
    ValueError for other than 1 or 3 channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be (N, 1 or 3, H, W); got {tuple(images.shape)}")
    factor = max(1, -(-side // min(images.shape[2:])))
    pixels = images.detach().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    colours = pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    return [_png(np.repeat(np.repeat(image, factor, 0), factor, 1)) for image in colours]


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def decoded(png: bytes) -> np.ndarray:
    """The pixels of a PNG, (H, W, 3) uint8. ValueError where it is no image."""
    try:
        with Image.open(io.BytesIO(png)) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise ValueError(f"these {len(png)} bytes are no image: {error}") from error
