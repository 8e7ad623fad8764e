"""What the words of the parameters become: how f is computed, in training and afterwards, and when sampling stops."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_certification import DATASET, IDS
from toys import hyperplane

from lib import methods, sampling
from lib.bounds import AtRadii, Bound, Tolerance
from lib.config import Common, NoiseTraining, RandomizedSmoothing
from lib.datasets import Data, load_dataset
from lib.methods import cohen2019
from lib.methods.common import _stopping_rule
from lib.models import build_classifier
from lib.smoothing import SmoothedClassifier
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
        ("float32, channels-last", "float32"),
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


@pytest.mark.parametrize(("asked", "bound"), [(None, True), (False, False), (True, True)])
def test_both_classes_are_bounded_where_the_parameter_or_the_call_says_so(asked, bound, tmp_path):
    cfg = Common(run_dir=str(tmp_path), n=200, two_class=True)
    methods.certified(cfg, DATA, hyperplane(), 0.5, "log", IDS, two_class=asked)
    parameters = json.loads(next(tmp_path.glob("records/log-*.json")).read_text())["parameters"]
    assert parameters["bound"] == Bound(two_class=bound).name


def test_levels_make_the_noise_of_a_record_that_of_a_grid(tmp_path):
    cfg = Common(run_dir=str(tmp_path), n=200, levels=16)
    base = build_classifier("digits_cnn", DIGITS).eval()
    methods.certified(cfg, DIGITS, base, 0.5, "log", [0, 1])
    parameters = json.loads(next(tmp_path.glob("records/log-*.json")).read_text())["parameters"]
    assert parameters["noise"] == sampling.Grid(0.5, levels=16).name
    with pytest.raises(ValueError, match="multiples of 1/16"):
        methods.certified(cfg, DATA, hyperplane(), 0.5, "log", IDS)


def test_with_levels_g_votes_as_on_the_grid_and_takes_images_between_its_points():
    base, (images, _) = build_classifier("digits_cnn", DIGITS).eval(), DIGITS.test[:4]
    exact = SmoothedClassifier(base, sampling.Grid(0.5, levels=16), 10).sample(images, range(4), 4000)
    g = methods.smoothed(Common(levels=16), DIGITS, base, 0.5)
    assert np.abs(g.sample(images, range(4), 4000) - exact).max() < 4 * np.sqrt(2 * 4000 / 4)
    assert g.sample(0.99 * images, range(4), 10).sum() == 40


def test_selection_votes_and_predictions_are_of_the_same_f():
    g = methods.smoothed(Common(compute="bfloat16"), DATA, hyperplane(), 0.5)
    assert g.base.compute == "bfloat16" and g.base.network(torch.rand(2, 1, 3, 4)).shape == (2, 2)


def test_an_attack_on_g_fails_inside_the_radius_and_succeeds_far_outside(tmp_path):
    """Of a linear classifier the radius is the distance to its plane: nothing inside, everything well beyond."""
    cfg = RandomizedSmoothing(run_dir=str(tmp_path), n=2000)
    log = methods.certified(cfg, DATA, hyperplane(), 0.5, "log", IDS)
    near = log[log["correct"] & (log["radius"] < 0.5)]
    assert len(near) >= 2
    changed = [methods.changed_by_attack(cfg, DATA, hyperplane(), 0.5, near, factor) for factor in (1.0, 3.0)]
    assert changed[0] == 0 and changed[1] >= len(near) / 2
    assert methods.changed_by_attack(cfg, DATA, hyperplane(), 0.5, near[:0], 3.0) == 0
