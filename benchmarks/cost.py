"""What a whole certification costs: `python -m benchmarks.cost [--images N] [--rate SAMPLES_PER_SECOND] [--workers N]`.

Samples an image takes, times images, over the samples a second of one device. The first comes from
results/sample_savings.csv, for Cohen et al.'s ImageNet models (benchmarks/samples.py); the last is yours to measure:

    python -m benchmarks.throughput --device cuda --models "ResNet-50, 224 pixels"

Without --rate it is what Cohen et al. 2019 report for a ResNet-50 on an RTX 2080 Ti: 110 seconds for n = 100,000.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

SAVINGS = Path(__file__).parents[1] / "results" / "sample_savings.csv"
N0 = 100
PAPER_RATE = 100_100 / 110  # samples a second


def samples(table: pd.DataFrame, sigma: float, radius: float) -> Iterator[tuple[str, int]]:
    """(way to certify, samples an image takes) at a noise level; `radius` for the question about one radius."""
    yield "fixed n = 100,000, as Cohen et al.", N0 + 100_000
    yield "fixed n = 10,000, as Carlini et al.", N0 + 10_000
    at = table.query("data == 'imagenet' and sigma == @sigma")
    grids, single = at[at["rule"].str.startswith("grid")], at.query("rule == 'one radius' and radii == @radius")
    if len(grids) != 2 or len(single) != 1:
        raise ValueError(f"{SAVINGS.name} has no ImageNet model at sigma = {sigma} with radius = {radius}")
    for rule, taken in zip(grids["rule"], grids["samples"], strict=True):
        yield f"as many as the table's radii need ({rule})", N0 + taken
    yield f"as many as r = {radius:g} needs", N0 + int(single["samples"].iloc[0])


def cost(images: int, rate: float, workers: int, sigma: float = 0.5, radius: float = 1.0) -> pd.DataFrame:
    """One row a way. ValueError for numbers that are not positive, or a setting that was not simulated."""
    for name, value in (("images", images), ("rate", rate), ("workers", workers)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite; got {value!r}")
    table = pd.read_csv(SAVINGS, comment="#")
    table["radii"] = pd.to_numeric(table["radii"], errors="coerce")  # a range stands for a grid
    ways = pd.DataFrame(samples(table, sigma, radius), columns=["way", "samples an image"])
    hours = ways["samples an image"] * images / rate / 3600
    return ways.assign(**{
        "samples": ways["samples an image"] * images, "device-hours": hours, f"hours on {workers}": hours / workers
    })  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=PAPER_RATE, help="samples a second of one device")
    parser.add_argument("--workers", type=int, default=16, help="devices at work at once")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--radius", type=float, default=1.0)
    options = parser.parse_args()
    try:
        table = cost(**vars(options))
    except ValueError as error:
        parser.error(str(error))
    print(f"{options.images:,} images, sigma = {options.sigma:g}, {options.rate:,.0f} samples a second and device")
    print("| " + " | ".join(table) + " |\n|" + " --- |" * len(table.columns))
    for way, each, total, *hours in table.itertuples(index=False):
        print(f"| {way} | {each:,} | {total:.2g} | " + " | ".join(f"{value:,.1f}" for value in hours) + " |")


if __name__ == "__main__":
    main()
