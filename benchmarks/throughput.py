"""Samples a second of the kit, as ratios measured in one run: `python -m benchmarks.throughput [--models NAME ...]`.

bare   the forward pass alone, at its best batch size: no noise, no counting. The kit aims at 0.9 of it.
loop   what the papers' public code does: one image at a time, batches of 1000, labels counted in Python on the host.
n      the estimation stage of CERTIFY: many samples of each image.
n0     the selection stage: 100 samples of each image, where batches that mix images pay.

Machines are noisy, so the contenders take turns and each ratio is the median over the rounds, with the range beside it.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from lib.datasets import CIFAR10_MEAN, CIFAR10_STD, load_dataset
from lib.models import build_classifier, build_denoiser
from lib.models.classifiers import CifarResNet, Normalize
from lib.sampling import class_counts

SIGMA = 0.25
BATCH_SIZES = (125, 250, 500, 1000, 2000)  # where the bare forward pass looks for its best


def digits_cnn() -> nn.Module:
    return build_classifier("digits_cnn", load_dataset("digits"))


def resnet(depth: int) -> nn.Module:
    return nn.Sequential(Normalize(CIFAR10_MEAN, CIFAR10_STD), CifarResNet(depth, "B", 10))


# name -> (builder, image shape, samples in one measurement on a CPU; a GPU takes a hundred times as many)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], int]] = {
    "digits_cnn": (digits_cnn, (1, 8, 8), 100_000),
    "resnet20": (lambda: resnet(20), (3, 32, 32), 2_000),
    "resnet110": (lambda: resnet(110), (3, 32, 32), 500),
    "dncnn+resnet20": (lambda: nn.Sequential(build_denoiser("cifar_dncnn"), resnet(20)), (3, 32, 32), 200),
}


@torch.inference_mode()
def bare(model: nn.Module, images: Tensor, samples: int, batch_size: int) -> None:
    """The forward pass on one batch, again and again."""
    batch = images[:1].expand(batch_size, -1, -1, -1).contiguous()
    for _ in range(max(1, samples // batch_size)):
        model(batch)


@torch.inference_mode()
def papers_loop(model: nn.Module, images: Tensor, n: int, num_classes: int = 10) -> np.ndarray:
    """One image after the other, a batch of copies each time, labels counted one by one on the host."""
    counts = np.zeros((len(images), num_classes), int)
    for row, image in zip(counts, images):
        for first in range(0, n, 1000):
            copies = image.repeat(min(1000, n - first), 1, 1, 1)
            for label in model(copies + SIGMA * torch.randn_like(copies)).argmax(1).cpu().numpy():
                row[label] += 1
    return counts


def kit(model: nn.Module, images: Tensor, n: int, batch_size: int) -> None:
    """The kit's class counts."""
    class_counts(model, images, range(len(images)), n, sigma=SIGMA, num_classes=10, batch_size=batch_size)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's work included."""
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def best_batch_size(model: nn.Module, images: Tensor, samples: int) -> int:
    """The batch size at which the bare forward pass is fastest, of those that a measurement can fill."""
    sizes = [size for size in BATCH_SIZES if size <= max(samples, BATCH_SIZES[0])]
    pace = {size: seconds(lambda s=size: bare(model, images, samples, s), images.device) for size in sizes * 2}
    return min(sizes, key=lambda size: pace[size] / max(1, samples // size) / size)


def measure(name: str, device: torch.device, rounds: int) -> dict[str, str]:
    """One row of the table."""
    build, shape, samples = MODELS[name]
    samples *= 100 if device.type == "cuda" else 1
    model = build().eval().to(device)
    few, many = torch.rand(2, *shape, device=device), torch.rand(max(2, samples // 100), *shape, device=device)
    size = best_batch_size(model, few, samples)
    contenders = {
        "bare": (lambda: bare(model, few, samples, size), max(1, samples // size) * size),
        "n": (lambda: kit(model, few, samples // 2, size), samples // 2 * 2),
        "n0": (lambda: kit(model, many, 100, size), 100 * len(many)),
        "loop, n": (lambda: papers_loop(model, few, samples // 2), samples // 2 * 2),
        "loop, n0": (lambda: papers_loop(model, many, 100), 100 * len(many)),
    }
    rate = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name_, (call, count) in contenders.items():
            taken = seconds(call, device)
            if turn:  # the first turn warms up
                rate[name_].append(count / taken)
    return {
        "model": name,
        "batch": str(size),
        "bare, samples/s": f"{np.median(rate['bare']):,.0f}",
        "n / bare": ratio(rate["n"], rate["bare"]),
        "n0 / bare": ratio(rate["n0"], rate["bare"]),
        "n / loop": ratio(rate["n"], rate["loop, n"]),
        "n0 / loop": ratio(rate["n0"], rate["loop, n0"]),
    }


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Median of the ratios within a round, and their range."""
    ratios = np.divide(ours, theirs)
    return f"{np.median(ratios):.2f} ({ratios.min():.2f}-{ratios.max():.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["digits_cnn"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    rows = [measure(name, torch.device(arguments.device), arguments.rounds) for name in arguments.models]
    print("| " + " | ".join(rows[0]) + " |\n|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")


if __name__ == "__main__":
    main()
