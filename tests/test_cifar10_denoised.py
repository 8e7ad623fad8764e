"""The committed CIFAR-10 records: a denoiser that was trained for minutes beats none, on the same images."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from lib.bounds import certified_radius, lower_confidence_bound
from lib.records import read_log
from lib.tables import certified_accuracy

FOLDER = Path(__file__).parents[1] / "results" / "cifar10_jpeg_denoised"
NAMES = ("no_denoiser", "mse", "stab_mse")


@pytest.fixture(scope="module")
def logs():
    return {name: read_log(FOLDER / f"{name}.tsv") for name in NAMES}


@pytest.mark.parametrize("radius", [0.0, 0.1])
@pytest.mark.parametrize("denoiser", ["mse", "stab_mse"])
def test_a_denoiser_certifies_more_images_than_none(denoiser, radius, logs):
    certified = {name: log["correct"].astype(bool) & (log["radius"] >= radius) for name, log in logs.items()}
    gained = int((certified[denoiser] & ~certified["no_denoiser"]).sum())
    lost = int((certified["no_denoiser"] & ~certified[denoiser]).sum())
    assert binomtest(gained, gained + lost, alternative="greater").pvalue < 1e-3  # McNemar's test, exact


def test_the_gain_is_more_than_20_points_of_accuracy(logs):
    assert certified_accuracy(logs["mse"], 0.0) - certified_accuracy(logs["no_denoiser"], 0.0) > 0.2


@pytest.mark.parametrize("name", NAMES)
def test_every_radius_follows_from_the_counts_beside_it(name, logs):
    log = logs[name]
    exact = certified_radius(lower_confidence_bound(log["n_a"], log["n"], log["alpha"]), log["sigma"])
    assert (log["radius"] <= exact).all() and np.allclose(log["radius"], exact, atol=1.1e-6)


def test_the_records_are_of_the_same_100_images_at_the_same_noise(logs):
    for log in logs.values():
        assert log["idx"].tolist() == list(range(0, 10_000, 100))
        assert set(log["sigma"]) == {0.25} and set(log["seed"]) == {0}


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_holds_the_parameters_and_no_path(name):
    text = (FOLDER / f"{name}.json").read_text()
    parameters = json.loads(text)["parameters"]
    assert (parameters["sigma"], parameters["n"], parameters["alpha"]) == (0.25, 500, 0.001)
    assert '"/' not in text and "\\\\" not in text
