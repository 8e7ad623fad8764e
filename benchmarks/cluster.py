"""What a second worker brings: `python -m benchmarks.cluster [--workers N] [--images N] [--rounds N]`.

Certifies the same images of CIFAR-10's size with a ResNet-20 (random weights: speed does not depend on them) in this
process and on the worker processes of a local cluster, every process with one torch thread. Machines are noisy, so the
two take turns and the speed-up is the median of the rounds' ratios, with the range beside it. Starting the workers is
not counted: a chunk for each of them is run before. The records must be the same, times aside.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import TensorDataset

from benchmarks.throughput import resnet
from lib.certification import certify_dataset
from lib.cluster import Workers, cluster
from lib.machine.provenance import MALLOC
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not MALLOC.keys() <= os.environ.keys():  # which a process reads as it starts; the workers have it
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.cluster", *sys.argv[1:]], os.environ | MALLOC)
    torch.set_num_threads(1)
    times = []
    with cluster(workers=options.workers) as client, tempfile.TemporaryDirectory() as folder:
        there = partial(certify_dataset, where=Workers(client))
        seconds(there, 4 * options.workers, folder)
        for _ in range(options.rounds):
            (here, log), (spread, same) = (seconds(f, options.images, folder) for f in (certify_dataset, there))
            assert log.equals(same), "the cluster made another record"
            times.append((here, spread, here / spread))
    here, spread, ratio = np.median(times, axis=0)
    low, high = np.array(times)[:, 2].min(), np.array(times)[:, 2].max()
    print(f"{options.images} images: {here:.1f} s in one process, {spread:.1f} s on {options.workers} workers")
    print(f"speed-up {ratio:.2f} (from {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
