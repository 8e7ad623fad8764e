"""The committed records are what they say: counts and radii agree, and the README's figure can be drawn from them."""

import json
from pathlib import Path

import numpy as np
import pytest

from lib.records import read_log
from lib.records.recount import radii_of
from lib.smoothing import ABSTAIN
from lib.tables import certified_accuracy
from results import figures

RESULTS = Path(__file__).parents[1] / "results"
RECORDS = sorted(RESULTS.glob("*/*.tsv"))
NAMES = [f"{path.parent.name}/{path.stem}" for path in RECORDS]


def complete(path):
    """A log and its run's parameters. Records of version 0.1 name noise and bound in their manifest alone."""
    log, parameters = read_log(path), json.loads(path.with_suffix(".json").read_text())["parameters"]
    if "bound" not in log:
        assert "two-class" not in parameters.get("bound", "") and "Box-Muller" in parameters["noise"]
        log = log.assign(noise="gaussian", bound="anytime" if "rule" in parameters else "clopper-pearson")
        parameters.setdefault("rule", {"name": "AfterN"})
    return log, parameters


@pytest.mark.parametrize("path", RECORDS, ids=NAMES)
def test_every_radius_follows_from_the_counts_beside_it(path):
    log, _ = complete(path)
    exact = radii_of(log)
    assert (log["radius"] <= exact).all() and np.allclose(log["radius"], exact, atol=1.1e-6)
    assert ((log["predict"] == ABSTAIN) == (exact == 0)).all()


@pytest.mark.parametrize("path", RECORDS, ids=NAMES)
def test_every_record_has_a_manifest_that_agrees_with_its_rows(path):
    log, parameters = complete(path)
    for name in ("sigma", "n0", "alpha", "seed"):
        assert (log[name] == parameters[name]).all()
    fixed = parameters["rule"]["name"] == "AfterN"
    assert (log["n"] == parameters["n"]).all() if fixed else (log["n"] <= parameters["n"]).all()


def test_the_records_of_the_readmes_figures_are_there():
    assert sorted(path.stem for path in RESULTS.glob("digits/*.tsv")) == sorted(figures.RECORDS)
    assert {len(figures.log(name)) for name in figures.RECORDS if name.startswith("01")} == {500}


def test_more_noise_starts_lower_and_reaches_further():
    logs = [figures.log(f"01_train_{s}-test_{s}") for s in figures.SIGMAS]
    at_zero = [certified_accuracy(log, 0.0) for log in logs]
    reach = [log["radius"].max() for log in logs]
    assert at_zero == sorted(at_zero, reverse=True) and reach == sorted(reach)
