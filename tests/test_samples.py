"""The simulation of sample savings against the real thing, and the committed table against what is claimed of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from toys import anytime_radius, hyperplane

from benchmarks.samples import Images, certified, simulate
from lib.bounds import AtRadii
from lib.smoothing import SmoothedClassifier

TABLE = Path(__file__).parents[1] / "results" / "sample_savings.csv"


def test_simulated_stopping_times_and_certificates_are_those_of_certification():
    rule, base = AtRadii(radii=(0.25, 0.5)), hyperplane()
    photos = torch.rand(300, 1, 3, 4, generator=torch.Generator().manual_seed(3))
    distance = base.distance(photos).abs().numpy()
    real = SmoothedClassifier(base, 0.5, 2).certify(photos, range(300), 1000, 3000, 0.001, rule=rule)
    images = Images("toy", 0.5, norm.cdf(np.repeat(distance, 50) / 0.5), np.ones(15_000, bool), 3000)
    votes, taken = simulate(images, rule, np.random.default_rng(0))
    assert real.n.mean() == pytest.approx(taken.mean(), rel=0.15)
    reached = certified(anytime_radius(votes, taken, 0.5, 0.001), rule.radii).mean(axis=1)
    assert certified(real.radius, rule.radii).mean(axis=1) == pytest.approx(reached, abs=0.03)


def test_the_committed_table_shows_the_savings_that_are_claimed():
    table = pd.read_csv(TABLE, comment="#").query("data == 'cifar10'")
    one, grid = (table[table["rule"] == rule] for rule in ("one radius", "grid"))
    assert one["saving"].median() >= 20 and one["lost"].max() <= 0.6
    assert grid["saving"].median() >= 4 and grid["lost"].max() <= 0.6
    assert sorted(one["sigma"].unique()) == [0.12, 0.25, 0.5, 1.0]
