"""The object that says how g certifies: what it refuses, what it is called, and that every field is in its name."""

from dataclasses import dataclass, fields, replace

import numpy as np
import pytest

from lib.bounds import AfterN, AtRadii, Bound, Certificate, StoppingRule, Tolerance, lower_confidence_bound
from lib.bounds.certificate import BOUNDS
from lib.sampling import Gaussian

HOW = Certificate(n0=100, n=1000, alpha=0.001)
OTHER = {"n0": 99, "n": 999, "alpha": 0.01, "rule": AtRadii(radii=(0.5,)), "bound": Bound(two_class=True)}


def changed(name):
    bound = {"bound": Bound(anytime=True)} if name == "rule" else {}
    return replace(HOW, **{name: OTHER[name]} | bound)


def test_every_field_is_in_the_parameters_of_a_record():
    assert OTHER.keys() == {field.name for field in fields(Certificate)} == HOW.parameters().keys()
    for name in OTHER:
        assert changed(name).parameters()[name] != HOW.parameters()[name]


@pytest.mark.parametrize("rule", [AtRadii(radii=(0, 0.5)), Tolerance(tolerance=0.1)], ids=str)
def test_every_number_of_a_rule_is_in_the_parameters_of_a_record(rule):
    said = Certificate.of(100, 1000, 0.001, rule).parameters()["rule"]
    assert said == {"name": type(rule).__name__} | {field.name: getattr(rule, field.name) for field in fields(rule)}


@pytest.mark.parametrize("rule", [AtRadii(radii=(0.5,)), Tolerance(tolerance=0.1)], ids=str)
@pytest.mark.parametrize("bound", [Bound(), Bound(two_class=True)], ids=lambda bound: bound.name)
def test_a_rule_that_looks_at_votes_is_refused_under_a_bound_that_must_not_be_looked_at(rule, bound):
    with pytest.raises(ValueError, match=rf"{type(rule).__name__} looks at the votes .* {bound.name} bound holds only"):
        Certificate(n0=100, n=1000, alpha=0.001, rule=rule, bound=bound)
    assert Certificate.of(100, 1000, 0.001, rule, bound.two_class).bound == replace(bound, anytime=True)


def test_a_fixed_n_may_take_the_anytime_bound_too():
    assert replace(HOW, bound=Bound(anytime=True)).radius(990, 10, 1000, Gaussian(1.0)) > 0


def test_a_rule_of_ones_own_is_named_with_its_numbers():
    @dataclass(frozen=True)
    class Twice(StoppingRule):
        first: int = 50

        def looks(self, n):
            yield from (self.first, n)

        def settled(self, n_a, n_b, n, certificate, noise):
            return certificate.radius(n_a, n_b, n, noise) > 0

    how = Certificate.of(10, 100, 0.001, Twice(30))
    assert how.parameters()["rule"] == {"name": "Twice", "first": 30} and list(how.rule.looks(100)) == [30, 100]


@pytest.mark.parametrize("rule", [None, "after n", 5, AtRadii], ids=str)
def test_what_is_no_rule_is_refused(rule):
    with pytest.raises(ValueError, match=r"rule = .*: expected a rule such as AtRadii"):
        replace(HOW, rule=rule)


@pytest.mark.parametrize("missing", ["n0", "n", "alpha"])
def test_what_is_missing_is_asked_for(missing):
    with pytest.raises(ValueError, match=f"say n0, n and alpha.*{missing}=None"):
        Certificate.of(**{"n0": 1, "n": 1, "alpha": 0.5} | {missing: None})


@pytest.mark.parametrize("alpha", [0, 1, -0.1, float("nan"), 2])
def test_a_level_outside_the_open_unit_interval_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must lie strictly between 0 and 1"):
        replace(HOW, alpha=alpha)


def test_bounds_come_back_from_their_names_and_others_are_refused():
    assert len(BOUNDS) == 12 and all(Bound.named(bound.name) == bound for bound in BOUNDS.values())
    with pytest.raises(ValueError, match="bound = 'hoeffding': expected one of 'clopper-pearson'"):
        Bound.named("hoeffding")


def test_one_class_ignores_the_runner_up_and_two_classes_share_alpha():
    one, two = Bound().probabilities(900, 50, 1000, 0.002), Bound(two_class=True).probabilities(900, 50, 1000, 0.002)
    assert one == (lower_confidence_bound(900, 1000, 0.002), None)
    assert np.allclose(two, [lower_confidence_bound(900, 1000, 0.001), 1 - lower_confidence_bound(950, 1000, 0.001)])


def test_after_n_takes_n_and_looks_at_nothing():
    assert list(AfterN().looks(1234)) == [1234] and not AfterN().looks_at_votes
