"""What the words of the parameters become: how f is computed, in training and afterwards, and when sampling stops."""

import json
from dataclasses import replace

import pytest
import torch
from test_certification import DATASET, IDS
from toys import hyperplane

from lib import methods
from lib.bounds import AtRadii, Tolerance
from lib.config import Common, NoiseTraining, RandomizedSmoothing
from lib.datasets import Data, load_dataset
from lib.methods import cohen2019
from lib.methods.common import _stopping_rule
from lib.models import build_classifier
from lib.training.objectives import Gaussian

DATA = Data("halves", DATASET, DATASET, 2, ("0", "1"), (1, 3, 4), (0.5,), (0.5,))
DIGITS = load_dataset("digits")


@pytest.mark.parametrize(
    ("words", "rule"),
    [("after n", None), ("at radii 0 0.5", AtRadii(radii=(0, 0.5))), ("within 0.05", Tolerance(tolerance=0.05))],
)
def test_words_become_a_stopping_rule(words, rule):
    assert _stopping_rule(Common(stop=words)) == rule


@pytest.mark.parametrize(
    ("words", "trained"),
    [
        ("float32", "float32"),
        ("float16, channels-last, folded, compiled", "bfloat16, channels-last, compiled"),
        ("bfloat16, folded", "bfloat16"),
    ],
)
def test_training_is_computed_as_f_is_as_far_as_it_can_be(words, trained, monkeypatch, tmp_path):
    recipes = []
    monkeypatch.setattr(cohen2019, "train", lambda recipe, *_, **__: recipes.append(recipe))
    methods.noise_trained_classifier(NoiseTraining(run_dir=str(tmp_path), compute=words), DATA, 0.25)
    assert recipes[0].compute == trained


@pytest.fixture
def noise_file(tmp_path, monkeypatch):
    """A file of weights for sigma = 0.25, and the network in it."""
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    network = build_classifier("digits_cnn", DIGITS).eval()
    torch.save({"state_dict": network[1].state_dict()}, tmp_path / "noise_0.25.pth")
    return network


def test_a_classifier_trained_on_noise_may_come_from_a_file_a_noise_level(noise_file, monkeypatch):
    monkeypatch.setattr(cohen2019, "train", lambda *_, **__: pytest.fail("trained"))
    cfg = RandomizedSmoothing(classifier="noise_{sigma:.2f}.pth", normalization="standard")
    loaded = methods.noise_trained_classifier(cfg, replace(DIGITS, train=None), 0.25)
    images = DIGITS.test.tensors[0][:5]
    assert torch.equal(loaded(images), noise_file(images)) and not loaded.training


@pytest.mark.parametrize("name", ["noise_{sigma:.2f}.pth", "noise_0.25.pth"])
def test_the_classifier_without_noise_is_trained_where_no_file_of_it_is_there(name, noise_file, monkeypatch):
    trained = []
    monkeypatch.setattr(cohen2019, "train", lambda recipe, *_, **__: trained.append(recipe.objective))
    methods.noise_trained_classifier(RandomizedSmoothing(classifier=name, normalization="standard"), DIGITS, 0.0)
    assert trained == [Gaussian(0.0)]


def test_a_record_says_how_f_was_computed_and_when_sampling_stopped(tmp_path):
    cfg = Common(run_dir=str(tmp_path), n=2000, stop="at radii 0.25", compute="bfloat16")
    log = methods.certified(cfg, DATA, hyperplane(), 0.5, "log", IDS)
    parameters = json.loads(next(tmp_path.glob("records/log-*.json")).read_text())["parameters"]
    assert parameters["compute"] == "bfloat16" and parameters["rule"]["radii"] == [0.25]
    assert log["n"].min() < 2000


def test_selection_votes_and_predictions_are_of_the_same_f():
    g = methods.smoothed(Common(compute="bfloat16"), DATA, hyperplane(), 0.5)
    assert g.base.compute == "bfloat16" and g.base.network(torch.rand(2, 1, 3, 4)).shape == (2, 2)
