"""Queries a second through `lib.apis` against a bare client, and what the log costs: `python -m benchmarks.apis`.

The service is local, its model a constant, so that only the way to it counts. Ratios of one run; machines differ.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import torch

from lib.apis import Budget, HuggingFace, QueryLog, RemoteClassifier
from lib.apis.png import encoded
from lib.apis.serve import LocalService

LABELS = tuple("abcdefghij")


def rate(call: Callable[[], object], queries: int) -> float:
    """Queries a second of a call that makes so many."""
    start = time.perf_counter()
    call()
    return queries / (time.perf_counter() - start)


def bare(address: str, images: torch.Tensor, threads: int) -> None:
    """The same images through a client alone: encoded, sent side by side, answers read as JSON."""
    with httpx2.Client() as client, ThreadPoolExecutor(threads) as pool:
        headers = {"Content-Type": "image/png"}
        list(pool.map(lambda png: client.post(address + "/", content=png, headers=headers).json(), encoded(images, 1)))


def measure(queries: int, rounds: int) -> dict[str, float]:
    """Medians over the rounds: the bare client's rate, ours as a share of it, and the share of our time for the log."""
    rates: dict[str, list[float]] = {"bare": [], "ours": [], "log": []}
    with LocalService(lambda images: [[0.1] * 10] * len(images), LABELS) as service:
        for number in range(rounds):
            images = torch.rand(queries, 1, 8, 8, generator=torch.Generator().manual_seed(number))
            rates["bare"].append(rate(lambda: bare(service.address, images, HuggingFace.in_flight), queries))  # noqa: B023
            with tempfile.TemporaryDirectory() as folder:
                log = Path(folder) / "log.jsonl"
                f = RemoteClassifier(HuggingFace(service.address), LABELS, log=log, budget=Budget(queries))
                rates["ours"].append(rate(lambda: f(images), queries))  # noqa: B023
                lines = log.read_text().splitlines(keepends=True)
                again = QueryLog(Path(folder) / "again.jsonl")
                rows = [
                    {"key": str(i), "labels": [["a", 0.1]] * 5, "version": "", "attempts": 1} for i in range(queries)
                ]
                rates["log"].append(rate(lambda: [*(again.append([row]) for row in rows), again.sync()], len(lines)))  # noqa: B023
    ours, theirs = statistics.median(rates["ours"]), statistics.median(rates["bare"])
    return {"bare, queries a second": theirs, "ours / bare": ours / theirs,
            "share for the log": ours / statistics.median(rates["log"])}  # fmt: skip


def main() -> None:
    """Print the three figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.apis", description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for name, value in measure(options.queries, options.rounds).items():
        print(f"{name}: {value:.3g}")


if __name__ == "__main__":
    main()
