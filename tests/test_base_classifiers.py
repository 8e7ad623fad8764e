"""What may stand in for f, and what is refused, with the place and the remedy, before it can vote."""

import functools
from collections import deque
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from lib.certification import certify_dataset
from lib.models.compute import Computed
from lib.sampling import class_counts
from lib.smoothing import SmoothedClassifier

IMAGES = torch.rand(6, 1, 3, 4, generator=torch.Generator().manual_seed(0))
DATASET = TensorDataset(IMAGES, torch.arange(6) % 3)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()


def certify(base, images=IMAGES, ids=None, n0=10, n=50, **changed):
    return SmoothedClassifier(base, 0.25, 3, **changed).certify(images, ids, n0, n, 0.001)


class Answers(nn.Module):
    """A network whose logits are changed by `change`."""

    def __init__(self, change) -> None:
        super().__init__()
        self.network, self.change = network(), change

    def forward(self, images):
        return self.change(self.network(images))


WRONG = {
    "tuple": (lambda x: (x, x), r"got a tuple. Wrap it:\n.*\[0\]"),
    "list": (lambda x: [x], r"got a list. Wrap it:\n.*\[0\]"),
    "dict": (lambda x: {"logits": x}, r"got a dict. Wrap it:\n.*\['logits'\]"),
    "object": (lambda x: SimpleNamespace(logits=x), r"got a SimpleNamespace. Wrap it:\n.*\.logits"),
    "numpy": (lambda x: x.numpy(), r"got a ndarray. Return a tensor, such as torch.as_tensor\(\.\.\.\)$"),
    "none": (lambda x: None, "got a NoneType. Return a tensor"),
    "list of numbers": (lambda x: x.tolist(), "got a list. Return a tensor"),
    "nothing": (lambda x: [], "got a list. Return a tensor"),
    "one row a batch": (lambda x: x.mean(0, keepdim=True), r"logits \(\d+, 3\), a row an image.*got \(1, 3\)"),
    "two rows an image": (lambda x: torch.cat([x, x]), r"got \(\d+, 3\)"),
    "too few classes": (lambda x: x[:, :2], r"got \(\d+, 2\)"),
    "one number an image": (lambda x: x[:, 0], r"got \(\d+,\)"),
    "whole numbers": (lambda x: x.argmax(1, keepdim=True).expand(-1, 3), "float logits; got torch.int64"),
    "nan": (lambda x: x * float("nan"), "NaN or infinite"),
    "one nan": (lambda x: x.masked_fill(torch.eye(len(x), 3).bool(), float("nan")), "NaN or infinite"),
    "infinite": (lambda x: x / 0, "NaN or infinite"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_answers_that_are_no_logits_are_refused(change, message, tmp_path):
    base = Answers(change).eval()
    base.identity = lambda: "here it is the answers that count"
    with pytest.raises(ValueError, match=f"(?s){message}"):
        certify(base)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        certify_dataset(SmoothedClassifier(base, 0.25, 3), DATASET, range(6), tmp_path / "log", n0=10, n=50, alpha=0.1)
    assert not list(tmp_path.iterdir())


def hidden(part: nn.Module, how: str) -> nn.Module:
    base = network()
    if how == "closure":
        base.part = lambda x: part(x)
    elif how == "default":
        base.part = lambda x, net=part: net(x)
    elif how == "global":
        base.part = eval("lambda x: [one_part(row) for row in x]", {"__name__": "__main__", "one_part": part})
    elif how == "class":
        base.part = type("Holder", (), {"__module__": "__main__", "net": part})()
    elif how == "named by forward":
        code = "class Named:\n  def forward(self, x): return self.inner(x)\n  def inner(self, x): return one_part(x)"
        exec(code, space := {"__name__": "__main__", "one_part": part})
        base.part = space["Named"]()
    elif how == "slots":
        base.part = type("Slotted", (), {"__slots__": ("net",)})()
        base.part.net = part
    else:
        base.part = {
            "attribute": part, "list": [part], "tuple": (0, part), "dict": {"a": part}, "nested": [{"a": (part,)}],
            "deque": deque([part]),
            "partial": functools.partial(torch.sum, part), "method": part.forward, "object": SimpleNamespace(net=part),
        }[how]  # fmt: skip
    return base


PLACES = [
    "attribute", "list", "tuple", "dict", "nested", "partial", "method", "object", "closure", "default", "global",
    "class", "named by forward", "slots", "deque",
]  # fmt: skip


@pytest.mark.parametrize("how", PLACES)
def test_a_module_in_training_mode_is_found_wherever_it_is(how):
    with pytest.raises(ValueError, match=r"part.*BatchNorm1d\) is in training mode: call \.eval\(\)"):
        certify(hidden(nn.BatchNorm1d(3).train(), how))
    certify(hidden(nn.BatchNorm1d(3).eval(), how))


@pytest.mark.parametrize("how", PLACES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_found_wherever_it_is(how, value):
    part = nn.Linear(3, 2).eval()
    part.bias.data[1] = value
    with pytest.raises(ValueError, match=rf"weight bias of .*Linear\) is not finite: 1 of 2, such as {value}"):
        certify(hidden(part, how))


def test_a_module_that_is_set_to_training_mode_later_is_refused_at_the_next_call():
    base = nn.Sequential(network(), nn.Dropout(0.5).eval()).eval()
    g = SmoothedClassifier(base, 0.25, 3)
    base[1].train()
    with pytest.raises(ValueError, match="1 of base is in training mode"):
        g.predict(IMAGES)


@pytest.mark.parametrize("how", PLACES)
def test_so_is_one_that_is_hidden(how):
    base = hidden(part := nn.Dropout(0.5).eval(), how)
    g = SmoothedClassifier(base, 0.25, 3)
    g.predict(IMAGES)
    part.train()
    with pytest.raises(ValueError, match=r"part.* of base is in training mode"):
        g.predict(IMAGES)


def test_what_a_class_names_outside_of_its_answer_is_no_part_of_it():
    code = "class Named:\n  def forward(self, x): return x\n  def fit(self, x): return teacher(x)"
    exec(code, space := {"__name__": "__main__", "teacher": nn.Dropout(0.5).train()})
    base = network()
    base.part = space["Named"]()
    certify(base)


def test_a_function_is_taken_as_it_is():
    net = network()
    assert (certify(lambda x: net(x)).n_a == certify(net).n_a).all()
    assert torch.equal(
        class_counts(net.forward, IMAGES, None, 50, sigma=0.25, num_classes=3),
        class_counts(net, IMAGES, range(6), 50, sigma=0.25, num_classes=3),
    )


@pytest.mark.parametrize("base", [3, None, "net", nn.Linear, network().state_dict()], ids=str)
def test_what_cannot_be_called_is_refused(base):
    with pytest.raises(ValueError, match=r"base must be an nn.Module or a function"):
        certify(base)


def test_a_record_of_a_function_needs_its_identity(tmp_path):
    net = network()

    def answer(images):
        return net(images)

    with pytest.raises(ValueError, match="cannot be told from another function"):
        certify_dataset(SmoothedClassifier(answer, 0.25, 3), DATASET, [0], tmp_path / "log", n0=10, n=50, alpha=0.1)
    answer.identity = lambda: "net of the test"
    log = certify_dataset(SmoothedClassifier(answer, 0.25, 3), DATASET, [0], tmp_path / "log", n0=10, n=50, alpha=0.1)
    assert log["n_a"].tolist() == certify(net, IMAGES[:1]).n_a.tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_refused_with_the_remedy(dtype):
    with pytest.raises(ValueError, match=rf"the weights of base are {dtype}, the images torch.float32.*Computed\(base"):
        certify(network().to(dtype))
    assert certify(Computed(network(), "bfloat16")).n.tolist() == [50] * 6


def test_scripted_and_frozen_networks_are_taken():
    plain = certify(network()).n_a
    with pytest.warns(FutureWarning):
        scripted = torch.jit.script(network())
        frozen = torch.jit.freeze(scripted)
    assert (certify(scripted).n_a == plain).all() and (certify(frozen).n_a == plain).all()


class Masked(nn.Module):
    """Drops units, and hides it behind a class that is never answered."""

    def forward(self, images):
        logits = F.dropout(images.flatten(1)[:, :3], 0.5)
        return logits.index_fill(1, torch.tensor([2]), -1e9)


class Shifted(nn.Module):
    """Draws noise, under an offset that all logits share."""

    def forward(self, images):
        return images.flatten(1)[:, :3] + 0.1 * torch.rand(len(images), 3) + 1000


class Dropping(nn.Module):
    def forward(self, images):
        return F.dropout(images.flatten(1)[:, :3], 0.5)


class Noisy(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :3] + torch.rand(len(images), 3)


class OfTheBatch(nn.Module):
    def forward(self, images):
        rows = images.flatten(1)[:, :3]
        return F.batch_norm(rows, None, None, training=True)


@pytest.mark.parametrize(
    ("base", "when"),
    [
        (Dropping(), "the second time"),
        (Noisy(), "the second time"),
        (OfTheBatch(), "in a batch of another size"),
        (Masked(), "the second time"),
        (Shifted(), "the second time"),
    ],
    ids=["dropout", "noise", "batch statistics", "a masked class", "an offset"],
)
def test_what_is_no_fixed_function_gets_no_record(base, when, tmp_path):
    with pytest.raises(ValueError, match=f"answers the same images differently {when}"):
        certify_dataset(
            SmoothedClassifier(base.eval(), 0.25, 3), DATASET, range(6), tmp_path / "log", n0=9, n=9, alpha=0.1
        )
    assert not list(tmp_path.iterdir())
