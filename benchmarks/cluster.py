"""What a second worker brings: `python -m benchmarks.cluster [--workers N] [--images N] [--rounds N]`.

Certifies the same images of CIFAR-10's size with a ResNet-20 (random weights: speed does not depend on them) in this
process and on the worker processes of a local cluster, every process with one torch thread. Machines are noisy, so the
two take turns and the speed-up is the median of the rounds' ratios, with the range beside it. Beside it stands the most
that the machine gives: as many processes that know nothing of each other, each with its share of the images. Starting
processes is not counted: a chunk for each of them is run before. The records must be the same, times aside.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import TensorDataset

from benchmarks.throughput import resnet
from lib.certification import certify_dataset
from lib.cluster import Workers, cluster
from lib.smoothing import SmoothedClassifier


def seconds(certify: Callable[..., pd.DataFrame], images: int, folder: str) -> tuple[float, pd.DataFrame]:
    """How long a certification of so many images takes, and its log."""
    pixels = torch.rand(images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    classifier = SmoothedClassifier(resnet(20).eval(), 0.25, 10, batch_size=400)  # four images a chunk
    dataset, path = (
        TensorDataset(pixels, torch.zeros(images, dtype=torch.long)),
        Path(tempfile.mkdtemp(dir=folder), "log"),
    )
    started = time.perf_counter()
    log = certify(classifier, dataset, range(images), path, n0=100, n=200, alpha=0.001)
    return time.perf_counter() - started, log.drop(columns="time")


def alone(apart: ProcessPoolExecutor, share: list[int], folder: str) -> float:
    """How long processes of their own take for so many images each."""
    started = time.perf_counter()
    list(apart.map(partial(seconds, certify_dataset), share, [folder] * len(share)))
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    times = []
    apart = ProcessPoolExecutor(options.workers, get_context("spawn"), torch.set_num_threads, (1,))
    with cluster(workers=options.workers) as client, apart, tempfile.TemporaryDirectory() as folder:
        there = partial(certify_dataset, where=Workers(client))
        share = [options.images // options.workers] * options.workers
        seconds(there, 4 * options.workers, folder)
        alone(apart, [4] * options.workers, folder)
        for _ in range(options.rounds):
            (here, log), (spread, same) = (seconds(f, options.images, folder) for f in (certify_dataset, there))
            assert log.equals(same), "the cluster made another record"
            shares = alone(apart, share, folder)
            times.append((here, spread, shares, here / spread, here / shares))
    here, spread, shares, ratio, most = np.median(times, axis=0)
    low, high = np.min(times, axis=0), np.max(times, axis=0)
    print(f"{options.images} images: {here:.1f} s in one process, {spread:.1f} s on {options.workers} workers")
    print(f"speed-up {ratio:.2f} (from {low[3]:.2f} to {high[3]:.2f})")
    print(f"processes apart: {shares:.1f} s, speed-up {most:.2f} (from {low[4]:.2f} to {high[4]:.2f})")


if __name__ == "__main__":
    main()
