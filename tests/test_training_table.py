"""The rows of the comparison table: what their words say, that each trains, and how rows are compared."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy.stats import binom

from lib import figures, methods, tables
from lib.bounds import accuracy_interval
from lib.config import CertifiedTraining
from lib.datasets import load_dataset
from lib.methods import training
from lib.methods.training import METHODS, number_fields, training_method
from lib.models.classifiers import Constant
from lib.sampling import FeatureNoise
from lib.training import objectives
from lib.training.objectives.copies import CheckedNumbers
from lib.words import LARGEST_KEY

ROOT = Path(__file__).parents[1]
DIGITS = load_dataset("digits")
NUMBERS = {
    "smoothadv": " epsilon 0.5 steps 1", "smoothadv-ddn": " epsilon 0.5 steps 1", "cat-rs": " steps 1 votes 3",
    "smoothmix": " alpha 0.5 steps 1", "copies": " copies 2", "drt": " diversity 0.5 confidence 0.5",
}  # fmt: skip
FIELDS = [(name, field, kind) for name in METHODS for field, kind in number_fields(name).items()]


# ---- words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "field", "kind"), FIELDS)
def test_every_number_of_every_method_can_be_set_in_words(name, field, kind):
    text = {int: "3", float: "0.25", bool: "true"}[kind]
    method, numbers = training_method(f"{name} {field} {text}")
    assert numbers == {field: kind(3) if kind is int else 0.25 if kind is float else True}
    assert field == "votes" or field in {one.name for one in dataclasses.fields(method.objective)}


@pytest.mark.parametrize(("name", "field", "kind"), FIELDS)
def test_a_value_that_is_no_such_number_is_named(name, field, kind):
    with pytest.raises(ValueError, match=rf"{field} much must be (a whole number|a number|true or false)"):
        training_method(f"{name} {field} much")


def test_every_objective_with_checked_numbers_is_a_row():
    known = {
        value for value in vars(objectives).values() if isinstance(value, type) and issubclass(value, CheckedNumbers)
    }
    trained = {method.objective for method in METHODS.values()}
    of_classifiers = {kind for kind in known if kind.__module__ not in OF_OTHERS}
    assert of_classifiers <= trained


OF_OTHERS = {  # heuristic defenses, which no noise is added for
    "lib.training.objectives.adversarial", "lib.training.objectives.distillation", "lib.training.objectives.squeezing",
}  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"recipes": ["smoothadvv epsilon 1"]}, "unknown method: 'smoothadvv'.*did you mean 'smoothadv'"),
        ({"recipes": ["consistency lambda 3"]}, "unknown number of consistency: 'lambda'"),
        ({"recipes": ["smoothadv"]}, "smoothadv.*epsilon"),
        ({"recipes": ["copies copies 0"]}, "copies must be a whole number, at least 1"),
        ({"recipes": ["gaussian", "drt diversity 1 confidence 1"]}, "it has a parameter of its own, drt"),
        ({"drt": "gaussian"}, "drt = 'gaussian': write drt"),
        ({"pixeldp": "pixeldp ramp 2"}, "ramp must be at most 1"),
    ],
)
def test_wrong_words_stop_before_anything_is_trained(setting, message):
    with pytest.raises(ValueError, match=message):
        methods.method_names(CertifiedTraining(**setting))


@pytest.mark.parametrize("words", ["", "SmoothAdv", "copies 2", "copies copies", "copies copies=2", "gaussian "])
def test_words_in_another_form_are_refused_with_an_example(words):
    with pytest.raises(ValueError, match=r"recipes\[0\].*smoothadv epsilon 0.5 steps 2"):
        CertifiedTraining(recipes=[words])


def test_one_method_with_two_numbers_is_two_rows():
    names = methods.method_names(CertifiedTraining(recipes=["consistency lam 1", "gaussian", "consistency lam 3"]))
    assert list(names) == ["Consistency (consistency lam 1)", "Gaussian", "Consistency (consistency lam 3)"]


SMALL_IMAGES = [path for path in sorted(ROOT.glob("profiles/*.yaml")) if path.stem != "imagenet"]  # it says why not


@pytest.mark.parametrize("path", SMALL_IMAGES, ids=lambda path: path.stem)
def test_every_profile_of_small_images_trains_every_method(path):
    told = yaml.safe_load(path.read_text(encoding="utf-8")).get("04_training", {})
    cfg = CertifiedTraining(**{name: told[name] for name in ("recipes", "drt", "pixeldp") if name in told})
    assert {words.split()[0] for words in (*cfg.recipes, cfg.drt, cfg.pixeldp)} == set(METHODS)


# ---- rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_is_certified(name, tmp_path):
    cfg = CertifiedTraining(
        run_dir=str(tmp_path), epochs=1, train_batch=256, images=5, n=20, n0=5, alpha=0.5, members=2
    )
    f = methods.method_classifier(cfg, DIGITS, name + NUMBERS.get(name, ""))
    noise = FeatureNoise(cfg.sigma) if name == "pixeldp" else cfg.sigma
    log = methods.certified(cfg, DIGITS, f, noise, name, range(5))
    assert len(log) == 5 and not f.training and not any(value.requires_grad for value in f.parameters())
    assert (log["n_a"] <= 20).all() and log["radius"].between(0, 3).all()


def test_members_of_an_ensemble_are_trained_with_one_seed_each_also_at_the_largest(monkeypatch):
    seeds = []
    monkeypatch.setattr(training, "method_classifier", lambda cfg, data, words, seed: seeds.append(seed))
    methods.boosted_members(CertifiedTraining(seed=LARGEST_KEY, members=3), DIGITS, "gaussian")
    assert seeds == [LARGEST_KEY, 0, 1]


def test_the_teacher_of_cat_rs_votes_on_every_training_image(tmp_path):
    cfg = CertifiedTraining(run_dir=str(tmp_path), epochs=1, train_batch=256)
    images, looked_up = training._soft_labels(cfg, DIGITS, 4)
    assert len(images) == len(DIGITS.train) and (looked_up["soft"].sum(1) == 1).all()
    assert torch.equal(images.tensors[1], torch.arange(len(images)))
    assert looked_up["classes"].tolist() == [int(DIGITS.train[i][1]) for i in range(len(images))]


def test_a_constant_classifier_answers_its_class_whatever_it_sees():
    images = torch.rand(3, 1, 8, 8)
    assert Constant(10, 7)(images).argmax(1).tolist() == [7, 7, 7]
    with pytest.raises(ValueError, match="answer must be a class from 0 to 9; got 10"):
        Constant(10, 10)


# ---- comparisons -----------------------------------------------------------------------------------------------


def log(radii, labels=None):
    radius = np.array(radii, float)
    right = radius > 0 if labels is None else np.array(labels, bool)
    return pd.DataFrame({"idx": range(len(radius)), "label": 1, "predict": np.where(right, 1, 0), "radius": radius,
                         "correct": right})  # fmt: skip


def test_a_paired_test_counts_the_images_on_which_two_logs_differ():
    logs = {"control": log([0.5, 0.5, 0.1, 0.1, 0.1]), "other": log([0.1, 0.5, 0.5, 0.5, 0.5])}
    found = tables.paired(logs, "control", 0.3).loc["other"]
    assert (found["gained"], found["lost"]) == (3, 1)
    assert found["p"] == pytest.approx(2 * binom.cdf(1, 4, 0.5))


def test_a_control_that_is_no_log_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="control must be one of 'a', 'b'; got 'Gaussian'"):
        tables.paired({"a": log([0.5]), "b": log([0.4])}, "Gaussian", 0.3)


def test_logs_that_differ_nowhere_have_p_1_and_those_of_other_images_are_refused():
    logs = {"a": log([0.5]), "b": log([0.4])}
    assert tables.paired(logs, "a", 0.3)["p"].tolist() == [1.0]
    with pytest.raises(ValueError, match="'b' and 'a' must be logs of the same images"):
        tables.paired(logs | {"b": logs["b"].assign(idx=7)}, "a", 0.3)


def test_own_logs_are_printed_in_the_form_of_the_lecture():
    numbers = tables.in_percent({"a": log([0.5, 0.1]), "b": log([0, 0.6])}, [0.3])
    assert tables.as_printed(numbers)[0.3].to_dict() == {"a": "(100.0) 50.0 [1, 99]", "b": "(50.0) 50.0 [1, 99]"}
    bare = tables.as_printed(numbers.drop(columns=["low", "high"]))
    assert bare[0.3].to_dict() == {"a": "(100.0) 50.0", "b": "(50.0) 50.0"}
    both = tables.as_printed(pd.concat([numbers, numbers.drop(columns=["low", "high"])[:1].assign(method="c")]))
    assert both.loc["a", 0.3].endswith("[1, 99]") and both.loc["c", 0.3] == "(100.0) 50.0"


@pytest.mark.parametrize(("reached", "images"), [(0, 7), (3, 7), (7, 7), (34, 100)])
def test_the_interval_of_a_row_is_the_one_of_its_images(reached, images):
    numbers = tables.in_percent({"a": log([0.5] * reached + [0.1] * (images - reached))}, [0.3, 9.0])
    low, high = accuracy_interval(reached, images)
    assert numbers.loc[0, ["low", "high"]].tolist() == pytest.approx([100 * low, 100 * high])
    assert numbers.loc[1, "low"] == 0 and numbers.loc[1, "certified_accuracy"] == 0


@pytest.mark.parametrize("others", [0, 1, 3, 4, 7])
def test_each_log_has_a_panel_beside_the_control(others):
    logs = {name: log([0.5, 0.2]) for name in ["control", *(f"method {i}" for i in range(others))]}
    figure = figures.against_control(logs, "control", "title")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == (list(logs)[1:] or ["control"])
    assert all(re.search("radius", axes.get_xlabel()) for axes in figure.axes[-3:])
