"""Samples an image takes if it may stop by itself: `python -m benchmarks.samples [--logs FOLDER] [--imagenet FOLDER]`.

Simulated on the vote shares of real images: those behind the certification logs of the CIFAR-10 models of Cohen et
al. 2019 (--logs: the folder with noise_0.25/sigma_0.25, from github.com/Hadisalman/smoothing-adversarial,
data/certify/best_models/cifar10/cohen), those of their ImageNet models (--imagenet: the folder with
noise_0.25/test/sigma_0.25, from github.com/locuslab/smoothing, data/certify/imagenet/resnet50; 500 images, 427 at
sigma = 0.25, certified at alpha = 0.01) and those of this kit's own records on digits. An image's share is taken for
its true probability, its votes are drawn by binomial increments, and the rules are those that certification uses. The
fixed-n reference counts the same votes and goes on to n, so what is lost is not blurred by other luck.

n          the fixed n, and the cap of the rules
samples    mean number of estimation samples an image; the 100 that select the class come on top
saving     against fixed n, the selection counted in both
certified  fraction of images certified at the radius, right or wrong (of several radii: at the first)
lost       points of certified accuracy lost against fixed n (of several radii: at the worst)

A log does not say where below 1/2 the images lie on which g abstained, and an image at exactly 1/2 is the dearest there
is for a grid with radius 0. `grid` goes on below 1/2 with the density that the shares have just above it;
`grid, abstained at 1/2` puts all of them there.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lib.bounds import (
    AtRadii,
    Bound,
    Certificate,
    StoppingRule,
    certified_radius,
    lower_confidence_bound,
)
from lib.machine.files import atomic_write
from lib.records import detect_alpha, read_log
from lib.sampling import Gaussian
from lib.tables import published

ALPHA, N0 = 0.001, 100  # the papers'
GRID = tuple(np.arange(0, 2.5, 0.25))  # of the papers' tables
IMAGENET_GRID = tuple(np.arange(0, 3.5, 0.5))
DIGITS = Path(__file__).parents[1] / "results" / "digits"


@dataclass(frozen=True)
class Images:
    """The true probability of each image's selected class, whether it is the label, and the fixed n to compare with."""

    data: str
    sigma: float
    share: np.ndarray
    correct: np.ndarray
    n: int
    grid: tuple[float, ...] = GRID

    def at_one_half(self, lowest: float) -> "Images":
        """Every share below `lowest` moved to 1/2."""
        return replace(self, share=np.where(self.share < lowest, 0.5, self.share))


def from_published_log(path: Path, sigma: float, imagenet: bool = False, n: int = 100_000) -> tuple[Images, Images]:
    """The shares that give the radii of a log, abstained images spread below 1/2; and the same with these at 1/2."""
    log, votes = read_log(path), np.arange(n // 2, n + 1)
    radii = certified_radius(lower_confidence_bound(votes, n, detect_alpha(log, sigma, n) or ALPHA), sigma)
    share = np.interp(log["radius"], radii[radii > 0], votes[radii > 0] / n)
    abstained, lowest = (log["predict"] == -1).to_numpy(), share.min()
    density = (share[~abstained] < lowest + 0.1).sum() / 0.1
    below = lowest - np.arange(abstained.sum()) / density
    spread = share.copy()
    spread[abstained] = np.maximum(below, 0.0)
    name, grid = ("imagenet", IMAGENET_GRID) if imagenet else ("cifar10", GRID)
    images = Images(name, sigma, spread, log["correct"].to_numpy(), n, grid)
    return images, images.at_one_half(lowest)


def from_record(path: Path, n: int) -> Images:
    """The shares n_a / n of a record of the kit, each so often that there are 10,000, to be certified with `n`."""
    log = read_log(path)
    log = log.loc[log.index.repeat(-(-10_000 // len(log)))]
    share, correct = (log["n_a"] / log["n"]).to_numpy(), (log["selected"] == log["label"]).to_numpy()
    return Images("digits", log["sigma"].iloc[0], share, correct, n)


def simulate(images: Images, rule: StoppingRule, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(votes, samples) of each image when `rule` has stopped it."""
    votes, taken = np.zeros((2, len(images.share)), int)
    active, done, how = np.arange(len(images.share)), 0, Certificate.of(N0, images.n, ALPHA, rule)
    for n in rule.looks(images.n):
        votes[active] += rng.binomial(n - done, images.share[active])
        taken[active] = done = n
        distinct, which = np.unique(votes[active], return_inverse=True)
        active = active[~rule.settled(distinct, n - distinct, n, how, Gaussian(images.sigma))[which]]
    return votes, taken


def radius(bound: Bound, votes: np.ndarray, n: np.ndarray | int, sigma: float) -> np.ndarray:
    """What `votes` of n certify, all other votes taken for one class."""
    return bound.radius(votes, n - votes, n, ALPHA, Gaussian(sigma))


def certified(radius: np.ndarray, radii: tuple[float, ...]) -> np.ndarray:
    """Whether each image is certified at each of the radii: bool (radii, images)."""
    return (radius >= np.array(radii)[:, None]) & (radius > 0)


def row(name: str, images: Images, radii: tuple[float, ...], rng: np.random.Generator) -> dict[str, object]:
    """A line of the table: what `AtRadii` takes and loses; with the name "fewer", a tenth of n for every image."""
    if name == "fewer":
        taken = np.full(images.share.shape, images.n // 10)
        votes, name, bound = rng.binomial(taken, images.share), f"fixed n = {images.n // 10}", Bound()
    else:
        votes, taken = simulate(images, AtRadii(radii=radii), rng)
        bound = Bound(anytime=True)
    reached = certified(radius(bound, votes, taken, images.sigma), radii)
    votes = votes + rng.binomial(images.n - taken, images.share)
    reference = certified(radius(Bound(), votes, images.n, images.sigma), radii)
    lost = ((reference & images.correct).mean(axis=1) - (reached & images.correct).mean(axis=1)).max()
    return {
        "data": images.data,
        "sigma": images.sigma,
        "n": images.n,
        "radii": f"{radii[0]:g}" if len(radii) == 1 else f"{radii[0]:g} to {radii[-1]:g}",
        "rule": name,
        "samples": round(taken.mean()),
        "saving": round((N0 + images.n) / (N0 + taken.mean()), 1),
        "certified": round(reached[0].mean(), 4),
        "certified_fixed": round(reference[0].mean(), 4),
        "lost": round(100 * lost, 2) + 0.0,
    }


def rows(images: Images, half: Images | None, seed: int = 0) -> Iterator[dict[str, object]]:
    """The lines of one log: each radius that fixed n certifies for some image, then the whole grid."""
    rng = np.random.default_rng(seed)
    largest = radius(Bound(), np.round(images.share * images.n), images.n, images.sigma).max()
    for r in (r for r in images.grid if 0 < r <= largest):
        yield row("fewer", images, (r,), rng)
        yield row("one radius", images, (r,), rng)
    yield row("fewer", images, images.grid, rng)
    yield row("grid", images, images.grid, rng)
    if half is not None:
        yield row("grid, abstained at 1/2", half, half.grid, rng)


def summary(table: pd.DataFrame) -> Iterator[str]:
    """The medians, in words."""
    for (data, n, rule), part in table.groupby(["data", "n", "rule"], sort=False):
        if not rule.startswith("fixed"):
            yield (
                f"{data}, n = {n}, {rule}: median saving {part['saving'].median():.1f} ({part['saving'].min():.1f} to "
                f"{part['saving'].max():.1f}), at most {part['lost'].max():.2f} points lost, {len(part)} settings"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Samples that sequential certification takes.")
    parser.add_argument("--logs", type=Path, help="folder with noise_0.25/sigma_0.25 and the like")
    parser.add_argument("--imagenet", type=Path, help="folder with noise_0.25/test/sigma_0.25 and the like")
    parser.add_argument("--records", type=Path, default=DIGITS, help="folder of records on digits")
    parser.add_argument("--output", type=Path, help="also write the table to this CSV file")
    arguments = parser.parse_args()
    records = sorted(arguments.records.glob("*train_*.tsv"))
    sources = [(from_record(path, n), None) for n in (100_000, 10_000) for path in records]
    if arguments.logs:
        sigmas = sorted(published("cohen2019_logs_10k")["sigma"].unique())
        names = [(f"noise_{sigma:.2f}/sigma_{sigma:.2f}", sigma) for sigma in sigmas]
        sources = [from_published_log(arguments.logs / name, sigma) for name, sigma in names] + sources
    if arguments.imagenet:
        names = [(f"noise_{sigma:.2f}/test/sigma_{sigma:.2f}", sigma) for sigma in (0.25, 0.5, 1.0)]
        sources += [from_published_log(arguments.imagenet / name, sigma, imagenet=True) for name, sigma in names]
    if not sources:
        parser.error(f"no logs: give --logs, or --records other than {arguments.records}")
    table = pd.DataFrame([line for images, half in sources for line in rows(images, half)])
    print(table.to_string(index=False))
    print("\n".join(summary(table)))
    if arguments.output:
        heading = (
            "# python -m benchmarks.samples --logs FOLDER --imagenet FOLDER --output results/sample_savings.csv; "
            "its docstring explains\n"
        )
        atomic_write(arguments.output, heading + table.to_csv(index=False))


if __name__ == "__main__":
    main()
