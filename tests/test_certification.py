import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from torch.utils.data import TensorDataset
from toys import hyperplane

from lib import certification
from lib.bounds import AtRadii, Tolerance, anytime_radius, certified_radius, lower_confidence_bound
from lib.certification import certify_dataset
from lib.models.identity import weights_hash
from lib.records import recount
from lib.smoothing import ABSTAIN, SmoothedClassifier

IMAGES = torch.rand(24, 1, 3, 4, generator=torch.Generator().manual_seed(2))
DATASET = TensorDataset(IMAGES, torch.arange(24) % 2)
IDS = list(range(0, 24, 2))
RULE = AtRadii(radii=(0, 0.25, 0.5))


def certify(folder, ids=IDS, base=None, dataset=DATASET, sigma=0.5, n=400, alpha=0.001, rule=None):
    classifier = SmoothedClassifier(base or hyperplane(), sigma, 2, batch_size=300)
    return certify_dataset(classifier, dataset, ids, folder / "log", n0=100, n=n, alpha=alpha, rule=rule)


def without_time(log):
    return log.drop(columns="time")


def test_the_log_says_what_certify_says(tmp_path):
    log = certify(tmp_path)
    truth = SmoothedClassifier(hyperplane(), 0.5, 2, batch_size=300).certify(IMAGES[IDS], IDS, 100, 400, 0.001)
    assert log["idx"].tolist() == IDS and (log["label"] == np.array(IDS) % 2).all()
    assert (log["predict"] == truth.predict).all() and (log["n_a"] == truth.n_a).all()
    assert (log["radius"] <= truth.radius).all() and np.allclose(log["radius"], truth.radius, atol=1e-6)


def test_a_finished_record_is_read_and_not_made_again(tmp_path, monkeypatch):
    first = certify(tmp_path)
    monkeypatch.setattr(SmoothedClassifier, "certify", lambda *_: pytest.fail("certified again"))
    pd.testing.assert_frame_equal(certify(tmp_path), first)


CHANGES = [{"n": 500}, {"sigma": 0.25}, {"base": hyperplane(1)}, {"ids": IDS[:5]}, {"rule": RULE}]


@pytest.mark.parametrize("change", CHANGES)
def test_another_setting_gets_a_record_of_its_own(change, tmp_path):
    first = certify(tmp_path)
    certify(tmp_path, **change)
    assert len(list(tmp_path.glob("log-*.tsv"))) == 2
    pd.testing.assert_frame_equal(certify(tmp_path), first)


def test_a_data_set_that_is_read_image_by_image_gives_the_same_log(tmp_path):
    lazy = torch.utils.data.Subset(DATASET, range(24))
    pd.testing.assert_frame_equal(
        without_time(certify(tmp_path / "a", dataset=lazy)), without_time(certify(tmp_path / "b"))
    )


SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
import test_certification as t
from pathlib import Path
slow = t.certification.certify_group
def group(*arguments, **how):
    time.sleep(0.2)
    return slow(*arguments, **how)
t.certification.certify_group = group
t.certify(Path(sys.argv[1]))
"""


def test_a_killed_certification_goes_on_and_ends_with_the_same_log(tmp_path):
    expected = certify(tmp_path / "whole")
    script = SCRIPT.format(tests=str(certification.Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "killed")])
    deadline = time.monotonic() + 60
    while not any(f.stat().st_size > 200 for f in tmp_path.glob("killed/*.tsv.partial")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("killed/*.tsv"))
    rows_before = len(next(tmp_path.glob("killed/*.tsv.partial")).read_text().splitlines()) - 1
    assert 0 < rows_before < len(IDS)
    pd.testing.assert_frame_equal(without_time(certify(tmp_path / "killed")), without_time(expected))


def test_recounting_at_another_alpha_is_certifying_at_that_alpha(tmp_path):
    strict, loose = certify(tmp_path, alpha=1e-6), certify(tmp_path, alpha=0.05)
    again = recount(strict, alpha=0.05)
    assert (again["predict"] == loose["predict"]).all() and (strict["predict"] == ABSTAIN).sum() > 0
    assert np.allclose(again["radius"], loose["radius"], atol=1e-6)
    assert (again["correct"] == loose["correct"]).all()


def test_projecting_to_another_n_scales_the_counts(tmp_path):
    log = certify(tmp_path)
    projected = recount(log, n=4000)
    n_a = log["n_a"].to_numpy() * 10
    assert np.allclose(projected["radius"], certified_radius(lower_confidence_bound(n_a, 4000, 0.001), 0.5))


def test_a_sequential_log_says_what_certify_sequential_says_and_its_manifest_names_the_rule(tmp_path):
    log = certify(tmp_path, n=5000, rule=RULE)
    g = SmoothedClassifier(hyperplane(), 0.5, 2, batch_size=300)
    truth = g.certify_sequential(IMAGES[IDS], IDS, 100, 5000, 0.001, RULE)
    assert (log["n"] == truth.n).all() and (log["n_a"] == truth.n_a).all() and log["n"].nunique() > 2
    assert (log["radius"] <= truth.radius).all() and np.allclose(log["radius"], truth.radius, atol=1e-6)
    parameters = json.loads(next(tmp_path.glob("log-*.json")).read_text())["parameters"]
    assert parameters["rule"] == {"name": "AtRadii", "radii": [0.0, 0.25, 0.5], "beta": 0.01, "growth": 1.2}
    assert parameters["n"] == 5000


def test_another_stopping_rule_is_another_record(tmp_path):
    for rule in (RULE, AtRadii(radii=(0.5,)), AtRadii(radii=(0.5,), beta=0.1), Tolerance(tolerance=0.1), RULE):
        certify(tmp_path, ids=IDS[:2], rule=rule)
    assert len(list(tmp_path.glob("log-*.tsv"))) == 4


def test_a_sequential_log_is_recounted_with_the_bound_that_is_valid_for_it(tmp_path):
    log = certify(tmp_path, n=5000, rule=RULE)
    assert np.allclose(recount(log)["radius"], log["radius"], atol=1e-6)
    looser = recount(log, alpha=0.05)
    assert np.allclose(looser["radius"], anytime_radius(log["n_a"], log["n"], 0.5, 0.05))
    assert (looser["radius"] >= log["radius"]).all()


def test_where_nothing_is_certified_the_bound_that_is_valid_for_both_kinds_of_log_recounts(tmp_path):
    log = certify(tmp_path).assign(n_a=203, n_b=197, radius=0.0, predict=ABSTAIN)
    assert (recount(log, alpha=0.45)["radius"] == anytime_radius(203, 400, 0.5, 0.45)).all()


def test_radii_that_no_bound_gives_are_not_recounted(tmp_path):
    log = certify(tmp_path)
    with pytest.raises(ValueError, match=r"log must come from CERTIFY at its alpha.*image 0"):
        recount(log.assign(radius=log["radius"] + 0.01), alpha=0.01)


def test_the_hash_of_a_model_follows_every_weight_and_buffer():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    hashes = [weights_hash(model)]
    for tensor in (model[0].weight, model[1].running_mean):
        with torch.no_grad():
            tensor[0] += 1
        hashes.append(weights_hash(model))
    hashes.append(weights_hash(torch.nn.Sequential(*model, torch.nn.Dropout(0.1))))
    assert len(set(hashes)) == 4


class Spread(torch.nn.Module):
    """Class 0 with probability 0.45 under noise of 0.5 about the middle grey, five others with 0.11 each."""

    def forward(self, images):
        share = torch.special.ndtr((images.flatten(1).mean(1) - 0.5) * 12**0.5 / 0.5)
        return torch.nn.functional.one_hot(((share - 0.45) / 0.11 + 1).clamp(0, 5.999).long(), 6).float()


@pytest.mark.parametrize("rule", [None, AtRadii(radii=(0, 0.125)), Tolerance(tolerance=0.05)])
def test_the_two_class_bound_certifies_where_the_votes_of_the_others_are_spread(rule, tmp_path):
    greys = TensorDataset(torch.full((4, 1, 3, 4), 0.5), torch.zeros(4, dtype=torch.long))
    g, arguments = SmoothedClassifier(Spread().eval(), 0.5, 6), {"n0": 100, "n": 5000, "alpha": 0.001, "rule": rule}
    one = certify_dataset(g, greys, range(4), tmp_path / "log", **arguments)
    two = certify_dataset(g, greys, range(4), tmp_path / "log", **arguments, two_class=True)
    exact = 0.5 * (norm.ppf(0.45) - norm.ppf(0.11)) / 2
    assert (one["radius"] == 0).all() and (two["predict"] == 0).all()
    assert ((0.125 if rule else 0.8 * exact) < two["radius"]).all() and (two["radius"] < exact).all()
    assert np.allclose(recount(two)["radius"], two["radius"], atol=2e-6)
    manifests = [json.loads(path.read_text())["parameters"] for path in tmp_path.glob("log-*.json")]
    assert sorted(parameters.get("bound", "") for parameters in manifests) == ["", "two-class"]
