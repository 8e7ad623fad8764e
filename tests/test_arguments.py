"""What is no number is refused by its name wherever a number is asked for, and a number of any kind is taken."""

import inspect
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lib import attacks, bounds
from lib.certification import certify_dataset
from lib.datasets import fixed_subset, holdout, load_dataset
from lib.records import recount
from lib.sampling import Gaussian, Grid, class_counts
from lib.smoothing import SmoothedClassifier

IMAGES = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
SET = TensorDataset(IMAGES, torch.tensor([0, 1, 0, 1]))
torch.manual_seed(0)
NET = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
SIZES = {"n0": 5, "n": 20, "alpha": 0.1}


def certified(**changes):
    return SmoothedClassifier(NET, 0.25, 2).certify(IMAGES, **SIZES | changes)


def log():
    g = SmoothedClassifier(NET, 0.25, 2)
    return pd.DataFrame(vars(g.certify(IMAGES, **SIZES))).assign(
        n=20, sigma=0.25, alpha=0.1, noise="gaussian", bound="clopper-pearson", label=0
    )


# what is asked -> a call with a value in its place
NUMBERS = {
    "sigma": lambda x: SmoothedClassifier(NET, x, 2),
    "sigma of a noise": Gaussian,
    "alpha": lambda x: certified(alpha=x),
    "tolerance": lambda x: bounds.Tolerance(tolerance=x),
    "radii": lambda x: bounds.AtRadii(radii=(x,)),
    "budget": lambda x: attacks.pgd(attacks.smoothed_loss(NET, torch.zeros(4).long()), IMAGES, x),
    "step_size": lambda x: attacks.pgd(
        attacks.smoothed_loss(NET, torch.zeros(4).long()), IMAGES, 0.1, steps=1, step_size=x
    ),
}
WHOLE = {
    "n0": lambda x: certified(n0=x),
    "n": lambda x: certified(n=x),
    "num_classes": lambda x: SmoothedClassifier(NET, 0.25, x),
    "seed": lambda x: SmoothedClassifier(NET, 0.25, 2, seed=x),
    "batch_size": lambda x: SmoothedClassifier(NET, 0.25, 2, batch_size=x),
    "n of class_counts": lambda x: class_counts(NET, IMAGES, None, x, sigma=0.25, num_classes=2),
    "levels": lambda x: Grid(0.25, x),
    "skip": lambda x: fixed_subset(500, x),
    "limit": lambda x: fixed_subset(500, 1, x),
    "length": fixed_subset,
    "size": lambda x: holdout(SET, x, 0),
    "steps": lambda x: attacks.pgd(attacks.smoothed_loss(NET, torch.zeros(4).long()), IMAGES, 0.1, steps=x),
    "restarts": lambda x: attacks.pgd(
        attacks.smoothed_loss(NET, torch.zeros(4).long()), IMAGES, 0.1, steps=1, restarts=x
    ),
    "averages": lambda x: attacks.pgd(
        attacks.smoothed_loss(NET, torch.zeros(4).long()), IMAGES, 0.1, steps=1, averages=x
    ),
    "n of recount": lambda x: recount(log(), n=x),
    "ids": lambda x: SmoothedClassifier(NET, 0.25, 2).certify(IMAGES[:1], [x], **SIZES),
}
SEVERAL = [[0.5, 0.5], (), np.array([2]), torch.ones(1), torch.tensor([True])]
NONE = [True, np.True_, torch.tensor(True), "a", b"1", {}, object(), float("nan"), *SEVERAL]
A_NUMBER = [2, 2.0, np.float32(2), np.int64(2), torch.tensor(2.0), torch.tensor(2), Fraction(2), Decimal(2)]


def shown(value):
    """The id of a test: the same in every process, which the repr of an object is not."""
    return "object" if type(value) is object else repr(value)


@pytest.mark.parametrize("value", NONE, ids=shown)
@pytest.mark.parametrize("name", [*NUMBERS, *WHOLE])
def test_what_is_no_number_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{re.escape(name.split()[0])} must"):
        (NUMBERS | WHOLE)[name](value)


@pytest.mark.parametrize("value", A_NUMBER, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", [*NUMBERS, *WHOLE])
def test_a_number_of_any_kind_is_taken(name, value):
    if name == "size" and isinstance(value, float):
        value = 0.5  # of the images
    (NUMBERS | WHOLE)[name](value / 4 if name == "alpha" else value)


FUNCTIONS = [value for value in vars(bounds).values() if inspect.isfunction(value)]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("value", [True, np.array([True]), "0.5", "a", {}, object()], ids=shown)
def test_a_bound_refuses_what_is_no_number(function, value):
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    with pytest.raises(ValueError, match=r" must|expected|such as"):
        function(*[value] * len(needed))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(SET)


G = SmoothedClassifier(NET, 0.25, 2)
OTHERS = {
    "two_class as a text": (lambda: certified(two_class="no"), "two_class must be True or False; got 'no'"),
    "one id": (lambda: G.certify(IMAGES, 7, **SIZES), "ids must be a list of whole numbers"),
    "a table of ids": (lambda: G.certify(IMAGES, np.ones((4, 1)), **SIZES), "ids must"),
    "images of numpy": (lambda: attacks.pgd(lambda x: x.sum(1), np.ones((2, 2)), 0.1), "images must be.*ndarray"),
    "a bound's name": (lambda: recount(log(), bound="anytime"), "bound = 'anytime': expected a Bound, such as"),
    "no path": (lambda: certify(path=None), "path must name a file"),
    "both splits": (lambda: certify(load_dataset("digits")), r"pass one of them, such as data\.test"),
    "a loader": (lambda: certify(DataLoader(SET)), r"DataLoader.*its \.dataset"),
    "a stream": (lambda: certify(Stream()), "no images by number"),
    "one id for a record": (lambda: certify(ids=7), "ids must be a list of whole numbers"),
}  # fmt: skip


def certify(dataset=SET, ids=range(4), path="never"):
    return certify_dataset(SmoothedClassifier(NET, 0.25, 2), dataset, ids, path, **SIZES)


@pytest.mark.parametrize(("call", "message"), OTHERS.values(), ids=OTHERS)
def test_another_thing_is_refused_with_what_to_write(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        call()
    assert not list(tmp_path.iterdir())
