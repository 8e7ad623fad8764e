"""What a classifier is: whatever decides an answer is in its hash, and nothing that does not."""

import collections
import copy
import enum
import functools
import logging
import os
import subprocess
import sys
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lib.models.classifiers import DigitsCNN
from lib.models.compute import Computed
from lib.models.identity import identity


class With(nn.Module):
    """A module with one attribute."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, images):
        return images


class Kind(enum.Enum):
    ONE = 1
    TWO = 2


@dataclass(frozen=True)
class Size:
    height: int


def half(x):
    return x / 2


def double(x):
    return 2 * x


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a


class Below(Slotted):
    """It has a __dict__, and an attribute in a slot of the class above."""


def with_attribute(kind, *content):
    value = type("Labelled", (kind,), {"__module__": "labelled"})(*content)
    value.a = 1
    return value, changed(value)


def changed(value):
    other = copy.copy(value)
    other.a = 2
    return other


def defaulting(k):
    def scaled(x, factor=k):
        return factor * x

    scaled.__qualname__ = "scaled"
    return scaled


def coded(text, name="f"):
    """What a notebook's cell defines: the same name, another code."""
    space = {"__name__": "__main__", "nn": nn}
    exec(text, space)
    return space[name]


class Held(nn.Module):
    """A class of the user's own that says its answer in the class."""

    scale = 1.0


def closing(k):
    class Scaled(nn.Module):
        def forward(self, images):
            return k * images

    return Scaled


def frozen(scale):
    torch.manual_seed(0)
    layer = nn.Linear(2, 2)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in use
        layer.weight *= scale
        return torch.jit.freeze(torch.jit.trace(layer.eval(), torch.ones(1, 2)))


def quantized(scale):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in use
        return with_buffer(torch.quantize_per_tensor(torch.ones(2), scale, 0, torch.quint8))


def with_buffer(tensor):
    module = nn.Module()
    module.register_buffer("held", tensor)
    return module


DOUBLE, TRIPLE = "def f(x): return 2 * x", "def f(x): return 3 * x"
NET = "class f(nn.Module):\n  def forward(self, x): return {} * x"
SPARSE = torch.eye(3).to_sparse()
# Two values of every kind of attribute that a module may hold.
PAIRS = {
    "int": (1, 2), "float": (0.5, 0.25), "bool": (True, False), "text": ("http://a", "http://b"), "bytes": (b"a", b"b"),
    "none": (None, 0), "number and text": (1, "1"), "int and float": (1, 1.0), "complex": (1j, 2j),
    "tuple": ((1, 2), (2, 1)), "list": ([0.5], [0.5, 0.5]), "dict": ({"a": 1}, {"a": 2}), "keys": ({"a": 1}, {"b": 1}),
    "set": ({1, 2}, {1, 3}), "range": (range(3), range(4)), "slice": (slice(0, 1), slice(0, 2)),
    "tensor": (torch.tensor([1.0]), torch.tensor([1.5])), "dtype": (torch.float32, torch.float16),
    "tensor's type": (torch.ones(2), torch.ones(2).double()), "shape": (torch.ones(2, 3), torch.ones(3, 2)),
    "array": (np.ones(2), np.array([1.0, 2.0])), "array of texts": (np.array(["a"]), np.array(["b"])),
    "numpy number": (np.float64(1), np.float64(2)), "path": (Path("a"), Path("b")), "enum": (Kind.ONE, Kind.TWO),
    "dataclass": (Size(8), Size(32)), "object": (SimpleNamespace(a=1), SimpleNamespace(a=2)),
    "function": (half, double), "class": (nn.ReLU, nn.GELU),
    "partial": (functools.partial(half), functools.partial(double)),
    "partial's argument": (functools.partial(torch.sum, dim=0), functools.partial(torch.sum, dim=1)),
    "method": (Size(1).__repr__, Size(2).__repr__), "nested": ({"a": [Size(1)]}, {"a": [Size(2)]}),
    "hidden module": ([nn.Linear(2, 2, bias=False)], [nn.Linear(2, 2)]),
    "tensor's method": (torch.tensor([1.0]).mul, torch.tensor([2.0]).mul), "slots": (Slotted(1), Slotted(2)),
    "slots above": (Below(1), Below(2)), "defaults": (defaulting(1), defaulting(2)), "order": (
        {"a": 1, "b": 2}, {"b": 2, "a": 1}), "deque": (collections.deque([1]), collections.deque([2])),
    **{f"{kind.__name__} with an attribute": with_attribute(kind, *content) for kind, *content in (
        (list, [1]), (dict, {"b": 1}), (set, {1}), (tuple, [1]), (float, 1.0), (int, 1), (str, "a"))},
    "code": (coded(DOUBLE), coded(TRIPLE)), "code of a method": (coded(NET.format(2))(), coded(NET.format(3))()),
    "closure of a method": (closing(1)(), closing(2)()),
    "sparse": (with_buffer(SPARSE), with_buffer(2 * SPARSE)), "frozen TorchScript": (frozen(1.0), frozen(1.0002)),
    "quantized": (quantized(0.1), quantized(0.3)),
    "conjugate": (torch.tensor([1j]).conj(), torch.tensor([1j])),
    "own identity": (SimpleNamespace(identity=half.__repr__), SimpleNamespace(identity=double.__repr__)),
}  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_two_values_of_an_attribute_are_two_classifiers(pair):
    first, second = map(With, pair)
    assert identity(first) != identity(second)
    assert identity(nn.Sequential(nn.ReLU(), first)) != identity(nn.Sequential(nn.ReLU(), second))


@pytest.mark.parametrize("value", [pair[0] for pair in PAIRS.values()], ids=PAIRS)
def test_a_copy_is_the_same_classifier(value):
    module = With(value)
    assert identity(copy.deepcopy(module)) == identity(module)


def test_what_a_class_of_ones_own_holds_counts(monkeypatch):
    before = identity(Held())
    monkeypatch.setattr(Held, "scale", 2.0)
    assert identity(Held()) != before


def test_a_number_that_ones_own_code_names_counts_and_so_does_a_function(monkeypatch):
    before = identity(With(uses_both))
    monkeypatch.setitem(globals(), "FACTOR", 3)
    changed_number = identity(With(uses_both))
    monkeypatch.setitem(globals(), "half", double)
    assert len({before, changed_number, identity(With(uses_both))}) == 3


FACTOR = 2


def uses_both(x):
    return [FACTOR * half(one) for one in x]


def test_code_has_one_hash_in_every_process_and_its_docstring_does_not_count():
    assert identity(With(coded(DOUBLE))) == identity(With(coded('def f(x):\n  "Twice."\n  return 2 * x')))
    code = 'def f(x): return x in {"a", "b", "c"}'
    ask = (
        f"import sys; sys.path.insert(0, 'tests')\nfrom test_identity import *\nprint(identity(With(coded({code!r}))))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", ask], cwd=Path(__file__).parents[1], env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert said == {identity(With(coded(code))) + "\n"}


def test_a_kits_network_whose_code_was_edited_has_another_structure_and_the_same_record(monkeypatch):
    model = DigitsCNN()
    before, trained_as = identity(model), identity(model, weights=False)
    monkeypatch.setattr(DigitsCNN, "forward", lambda self, images: self.layers(images).relu())
    assert identity(model) == before and identity(model, weights=False) != trained_as


def test_a_method_that_was_put_on_one_object_is_refused_where_its_name_says_too_little():
    for weight in (1, 2):
        net = nn.Linear(2, 2)
        net.forward = types.MethodType(lambda self, x, w=weight: w * x, net)
        with pytest.raises(ValueError, match=r"f\.forward.*method identity\(\)"):
            identity(net)


def test_every_weight_buffer_and_class_counts():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    hashes = [identity(model)]
    for tensor in (*model.parameters(), *model.buffers()):
        with torch.no_grad():
            tensor.view(-1)[0] += 1
        hashes.append(identity(model))
    hashes += [
        identity(nn.Sequential(*model, layer)) for layer in (nn.ReLU(), nn.GELU(), nn.Dropout(0.1), nn.Dropout(0.2))
    ]
    assert len(set(hashes)) == len(hashes) == 1 + 2 + 2 + 3 + 4


def test_buffers_that_are_not_saved_count_too():
    first, second = nn.Module(), nn.Module()
    for module, mean in ((first, 0.0), (second, 0.5)):
        module.register_buffer("mean", torch.tensor(mean), persistent=False)
    assert identity(first) != identity(second)


def test_a_hook_that_changes_answers_counts():
    plain, hooked, hidden = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    hooked.load_state_dict(plain.state_dict())
    hooked.register_forward_hook(half)
    assert identity(hooked) != identity(plain)
    hidden.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="identity"):
        identity(hidden)


def test_a_part_that_is_used_twice_counts_twice():
    first, second = nn.Linear(2, 2), nn.ReLU()
    once, twice = nn.Sequential(first, second), nn.Sequential(first, second, first)
    assert identity(once) != identity(twice) != identity(nn.Sequential(first, second, first, second))


def test_a_part_may_be_called_identity_and_modules_and_loggers_may_be_attributes():
    model = nn.Sequential(nn.Linear(2, 2))
    model.identity = nn.Identity()
    with_functions = copy.copy(model)
    with_functions.functions, with_functions.log = torch.nn.functional, logging.getLogger("kit")
    assert len({identity(model), identity(with_functions)}) == 2


def test_hooks_count_by_what_they_do_not_by_when_they_were_added():
    first, second = (nn.utils.spectral_norm(nn.Linear(2, 2)) for _ in range(2))
    second.load_state_dict(first.state_dict())
    second.weight = first.weight
    assert identity(first) == identity(second)


def test_structure_includes_numbers_kept_as_plain_tensors():
    assert identity(With(torch.zeros(1)), weights=False) != identity(With(torch.ones(1)), weights=False)


def test_what_does_not_decide_an_answer_does_not_count():
    model = nn.Linear(2, 2)
    before = identity(model)
    model(torch.ones(1, 2)).sum().backward()
    assert identity(model.requires_grad_(False).eval()) == before
    assert identity(nn.DataParallel(model)) == before == identity(torch.compile(model))
    assert identity(With(torch.device("cpu"))) == identity(With(torch.device("cuda:1")))
    assert identity(With({"_diffusers_version": "1"})) == identity(With({"_diffusers_version": "2"}))


def test_a_network_is_the_same_after_it_was_used():
    f = Computed(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval())
    before = identity(f)
    f(torch.rand(1, 1, 2, 2))
    assert identity(f) == before != identity(Computed(f.network, "bfloat16"))


def test_structure_alone_leaves_out_the_weights():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    assert identity(first) != identity(second) and identity(first, weights=False) == identity(second, weights=False)
    assert identity(first, weights=False) != identity(nn.Linear(2, 3), weights=False)


@pytest.mark.parametrize(
    "value",
    [lambda x: x, (lambda k: lambda x: k * x)(2), torch.Generator(), iter([1]), {"a": [lambda x: x]}],
    ids=["lambda", "closure", "generator", "iterator", "inside containers"],
)
def test_what_cannot_be_told_apart_is_refused_with_its_place_and_the_remedy(value):
    with pytest.raises(ValueError, match=r"f\.1\.value.*method identity\(\)"):
        identity(nn.Sequential(nn.ReLU(), With(value)))


class Remote(nn.Module):
    """No weights: a client of a service."""

    def __init__(self, url: object) -> None:
        super().__init__()
        self.url, self.session = url, iter([])

    def identity(self):
        return {"url": self.url}


def test_a_module_says_itself_what_tells_it_apart():
    assert identity(Remote("http://a")) == identity(Remote("http://a")) != identity(Remote("http://b"))
    with pytest.raises(ValueError, match=r"identity\(\) must return numbers, texts, lists or dicts"):
        identity(Remote(object()))


def test_an_object_that_contains_itself_has_an_identity():
    module = With({})
    module.value["self"] = module.value
    assert identity(module) == identity(copy.deepcopy(module))


STRUCTURES = """
import torch
from lib.models.architectures import CLASSIFIERS
from lib.models.denoisers import DENOISERS
from lib.models.identity import identity
from lib.models.small_unet import UNETS
torch.manual_seed(0)
print(identity(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5))))
builds = [lambda build=build: build(10) for group in CLASSIFIERS.values() for build in group.values()]
for build in [*builds, *DENOISERS.values(), *(build for shapes in UNETS.values() for build in shapes.values())]:
    print(identity(build(), weights=False))
"""


def test_every_process_finds_the_same_identity():
    """Of every network of the kit: Python orders sets and hashes otherwise in each process."""
    found = [
        subprocess.run(
            [sys.executable, "-c", STRUCTURES], env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]  # fmt: skip
    assert found[0] == found[1] and len(set(found[0])) > 30
