"""The loop: what it learns, what its weights belong to, and what it does when training cannot go on."""

import copy
import dataclasses
import hashlib
import json
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.optim import SGD, Adam
from torch.utils.data import TensorDataset

from lib.training import Diverged, Recipe, facts_of, train, weights, weights_path
from lib.training.objectives import MSE, Gaussian, Step
from lib.training.state import State

IMAGES = torch.rand(96, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = (IMAGES[:, 0, :4].mean((1, 2)) > IMAGES[:, 0, 4:].mean((1, 2))).long()  # is the upper half brighter?
DATASET = TensorDataset(IMAGES, LABELS)
HOOKS = []  # called with every batch: watching is no part of what an objective is


@dataclass(frozen=True)
class Watched(Gaussian):
    """Gaussian, while somebody looks."""

    def __call__(self, model, images, labels, step):
        for hook in HOOKS:
            hook(images, step)
        return super().__call__(model, images, labels, step)


RECIPE = Recipe(Watched(0.1), "mlp", epochs=4, batch_size=32, lr=0.05, lr_step=2)  # three batches an epoch


def build(width=16, dropout=0.2):
    layers = nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 2)
    return nn.Sequential(nn.Flatten(), *layers)


def fit(folder, recipe=RECIPE, dataset=DATASET, build=build, hook=None, **keywords):
    HOOKS[:] = [hook] if hook else []
    return train(recipe, build, dataset, folder, **keywords)


def name(recipe=RECIPE, build=build, dataset=DATASET):
    return weights_path("", facts_of(recipe, build, dataset)).stem


def flat(model):
    return torch.cat([tensor.flatten().float() for tensor in model.state_dict().values()])


class Interrupted(Exception):
    pass


def interrupt_after(batches):
    seen = []

    def hook(images, step):
        seen.append(1)
        if len(seen) > batches:
            raise Interrupted

    return hook


def never(images, step):
    pytest.fail("trained again")


# ---- learning --------------------------------------------------------------------------------------------------


def test_training_learns(tmp_path):
    model = fit(tmp_path, replace(RECIPE, objective=Gaussian(0.02), epochs=60, lr_step=60))
    assert (model(IMAGES).argmax(1) == LABELS).float().mean() > 0.9


@pytest.mark.parametrize("compute", ["bfloat16", "bfloat16, channels-last", "float32, compiled"])
def test_training_learns_however_it_is_computed(compute, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # needs no C++ compiler
    model = fit(tmp_path, replace(RECIPE, objective=Gaussian(0.02), epochs=60, lr_step=60, compute=compute))
    assert (model(IMAGES).argmax(1) == LABELS).float().mean() > 0.9


def test_the_same_training_gives_the_same_weights(tmp_path):
    assert torch.equal(flat(fit(tmp_path / "a")), flat(fit(tmp_path / "b")))


def test_another_seed_gives_other_weights(tmp_path):
    assert not torch.equal(flat(fit(tmp_path)), flat(fit(tmp_path, replace(RECIPE, seed=1))))


def test_the_model_comes_back_frozen_and_in_eval_mode(tmp_path):
    model = fit(tmp_path)
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_an_objective_is_told_where_training_stands(tmp_path):
    steps = []
    fit(tmp_path, hook=lambda images, step: steps.append((step.epoch, step.batch, step.epochs)))
    assert steps == [(epoch, batch, 4) for epoch in range(4) for batch in range(3)]


def test_every_epoch_has_an_order_and_noise_of_its_own(tmp_path):
    orders, draws = [], []

    def look(images, step):
        if step.batch == 0:
            orders.append(images)
            draws.append(torch.rand(8, generator=step.generator.clone_state()))

    fit(tmp_path, hook=look)
    for seen in (orders, draws):
        assert not any(torch.equal(seen[i], seen[j]) for i in range(4) for j in range(i))


def test_adam_then_sgd_really_switches(tmp_path, monkeypatch):
    stepped = []
    for kind in (Adam, SGD):
        original = kind.step
        monkeypatch.setattr(
            kind, "step", lambda self, *a, f=original, k=kind, **b: (stepped.append(k), f(self, *a, **b))
        )
    fit(tmp_path, replace(RECIPE, optimizer="adam_then_sgd", sgd_epoch=1))
    assert stepped == [Adam] * 3 + [SGD] * 9


def test_the_moving_average_is_kept_in_place_of_the_last_weights(tmp_path):
    plain, averaged = fit(tmp_path), fit(tmp_path, replace(RECIPE, ema=0.999))
    start = weights.seeded_build(RECIPE.seed, build)
    assert (flat(averaged) - flat(start)).norm() < 0.5 * (flat(plain) - flat(start)).norm()


def rates(recipe):
    """The learning rate of every epoch, and the one after the last."""
    state, seen = State(recipe, build()), []
    for epoch in range(recipe.epochs):
        seen.append(state.optimizer.param_groups[0]["lr"])
        state.optimizer.step()
        state.end_epoch(epoch)
    return [*seen, state.optimizer.param_groups[0]["lr"]]


def test_step_schedule_divides_the_rate_where_the_recipe_says():
    assert rates(RECIPE)[:4] == pytest.approx([0.05, 0.05, 0.005, 0.005])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adam_then_sgd"])
def test_the_cosine_ends_at_zero(optimizer):
    recipe = replace(RECIPE, optimizer=optimizer, schedule="cosine", epochs=8, sgd_epoch=5, sgd_lr=0.01)
    assert rates(recipe)[-1] == pytest.approx(0, abs=1e-12)
    assert rates(recipe)[5] == (0.01 if optimizer == "adam_then_sgd" else pytest.approx(0.05 * 0.3087, rel=1e-3))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_one_cycle_rises_to_the_rate_and_falls_to_zero_from_batch_to_batch(optimizer):
    recipe = replace(RECIPE, optimizer=optimizer, schedule="one-cycle", epochs=10)
    state, seen = State(recipe, build()), []
    for epoch in range(10):
        for batch in range(5):
            state.step(IMAGES, LABELS, Step(torch.Generator().manual_seed(0), epoch, batch, 10, 5))
            seen.append(state.optimizer.param_groups[0]["lr"])
        state.end_epoch(epoch)
    assert seen == pytest.approx([0.05 * x / 10 if x < 10 else 0.05 * (50 - x) / 40 for x in range(50)])


@pytest.mark.filterwarnings("ignore:This DataLoader")
def test_a_set_that_changes_its_tensors_when_read_is_read_item_by_item(tmp_path):
    class Dark(TensorDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return 0 * image, label

    seen = []
    fit(tmp_path, replace(RECIPE, epochs=1), Dark(IMAGES, LABELS), hook=lambda images, step: seen.append(images))
    assert torch.cat(seen).abs().max() == 0


def test_the_global_random_state_is_left_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    fit(tmp_path)
    assert torch.equal(torch.rand(1), expected)


# ---- what weights belong to ------------------------------------------------------------------------------------

WORDS = {"arch": "other", "optimizer": "adam", "schedule": "cosine", "compute": "bfloat16", "objective": MSE(0.1)}


def other(value):
    """Another legal value of a number or a switch."""
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else 0.5 * value + 0.25


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Recipe)])
def test_another_value_of_any_field_of_the_recipe_is_another_file(field):
    value = WORDS[field] if field in WORDS else other(getattr(RECIPE, field))
    assert name(replace(RECIPE, **{field: value})) != name()


def test_the_same_kind_of_objective_with_another_number_is_another_file():
    assert name(replace(RECIPE, objective=Watched(0.9))) != name()


one_pixel, one_label = IMAGES.clone(), LABELS.clone()
one_pixel[95, 0, 7, 7] += 1e-3
one_label[95] = 1 - one_label[95]
OTHER_IMAGES = {
    "fewer": TensorDataset(*DATASET[:64]),
    "one pixel": TensorDataset(one_pixel, LABELS),
    "one label": TensorDataset(IMAGES, one_label),
    "another order": TensorDataset(IMAGES.flip(0), LABELS.flip(0)),
}


@pytest.mark.parametrize("which", OTHER_IMAGES)
def test_other_images_or_labels_are_another_file(which):
    assert name(dataset=OTHER_IMAGES[which]) != name()


@pytest.mark.parametrize("change", [{"width": 17}, {"dropout": 0.3}])
def test_another_network_is_another_file(change):
    assert name(build=partial(build, **change)) != name()


def test_weights_to_start_from_are_told_apart_by_their_bytes():
    first, second = build(), build()
    third = copy.deepcopy(first)
    third[2].running_mean[3] += 1e-6
    names = [name(build=lambda start=start: copy.deepcopy(start)) for start in (first, first, second, third)]
    assert names[0] == names[1] and len({*names, name()}) == 4


def test_the_last_bits_of_weights_that_the_seed_draws_do_not_tell_one_machine_from_another():
    def elsewhere():
        network = build()
        network[5].weight.data.mul_(1 + 1e-6)
        return network

    assert name(build=elsewhere) == name()


def test_another_version_of_the_loop_is_another_file(monkeypatch):
    before = name()
    monkeypatch.setattr(weights, "LOOP", "another")
    assert name() != before


def test_the_very_same_training_is_loaded_and_not_done_again(tmp_path):
    first = flat(fit(tmp_path))
    assert torch.equal(flat(fit(tmp_path, hook=never)), first)


def test_all_that_weights_belong_to_can_be_read_beside_them(tmp_path):
    fit(tmp_path)
    data = (tmp_path / f"{name()}.safetensors").read_bytes()
    facts = json.loads((tmp_path / f"{name()}.json").read_text())
    assert facts == facts_of(RECIPE, build, DATASET) | {"sha256": hashlib.sha256(data).hexdigest()}
    assert facts["recipe"]["objective"]["fields"] == {"sigma": 0.1} and facts["recipe"]["epochs"] == 4
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_a_weights_file_names_its_architecture(tmp_path):
    fit(tmp_path)
    with safe_open(tmp_path / f"{name()}.safetensors", "pt") as file:
        assert file.metadata() == {"arch": "mlp"}


# ---- interrupted -----------------------------------------------------------------------------------------------


WAYS = [("sgd", "cosine"), ("adam", "cosine"), ("adam_then_sgd", "cosine"), ("sgd", "one-cycle")]


@pytest.mark.parametrize(("optimizer", "schedule"), WAYS)
@pytest.mark.parametrize("batches", [4, 8, 11])  # in the middle of an epoch, and late
def test_an_interrupted_run_ends_with_the_same_weights(optimizer, schedule, batches, tmp_path):
    recipe = replace(RECIPE, optimizer=optimizer, sgd_epoch=2, ema=0.9, schedule=schedule)
    with pytest.raises(Interrupted):
        fit(tmp_path, recipe, hook=interrupt_after(batches))
    assert not list(tmp_path.glob("*.safetensors"))
    assert torch.equal(flat(fit(tmp_path, recipe)), flat(fit(tmp_path / "whole", recipe)))


# ---- progress --------------------------------------------------------------------------------------------------


def test_progress_is_told_the_epochs_done_from_none_to_all(tmp_path):
    told = []
    fit(tmp_path, progress=told.append)
    assert told == [0, 1, 2, 3, 4]


def test_progress_is_told_that_all_is_done_where_weights_are_loaded(tmp_path):
    fit(tmp_path)
    told = []
    fit(tmp_path, progress=told.append)
    assert told == [4]


def test_progress_of_a_run_that_goes_on_begins_where_it_stopped(tmp_path):
    with pytest.raises(Interrupted):
        fit(tmp_path, hook=interrupt_after(8))
    told = []
    fit(tmp_path, progress=told.append)
    assert told == [2, 3, 4]


# ---- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", [None, TensorDataset(IMAGES[:0], LABELS[:0])])
def test_no_images_are_refused_before_anything_is_built(dataset, tmp_path):
    with pytest.raises(ValueError, match="no training images"):
        fit(tmp_path / "new", dataset=dataset, build=lambda: pytest.fail("built"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("label", [-100, -1, 2])
def test_a_label_that_is_no_class_of_the_network_is_refused_by_its_value(label, tmp_path):
    labels = LABELS.clone()
    labels[40] = label
    with pytest.raises(ValueError, match=rf"labels must be .* from 0 to 1.*{label}"):
        fit(tmp_path, dataset=TensorDataset(IMAGES, labels))
    assert not list(tmp_path.glob("*.safetensors"))


def nan_in(epoch, batch):
    def hook(images, step):
        if (step.epoch, step.batch) == (epoch, batch):
            images.fill_(torch.nan)

    return hook


@pytest.mark.parametrize("epoch, batch", [(0, 0), (1, 1), (2, 2)])  # the last one is seen at the end of its epoch
def test_a_loss_that_is_not_finite_stops_training_where_it_happens_and_leaves_no_weights(epoch, batch, tmp_path):
    met = []

    def hook(images, step):
        met.append((step.epoch, step.batch))
        nan_in(epoch, batch)(images, step)

    with pytest.raises(Diverged, match=rf"the loss is nan in epoch {epoch}, batch {batch} .*Lower lr = 0.05"):
        fit(tmp_path, hook=hook)
    assert met[-1] in [(epoch, batch), (epoch, batch + 1)]
    assert not [file for file in tmp_path.iterdir() if file.suffix != ".lock"]


def test_weights_that_are_not_finite_stop_training_where_the_loss_has_not_shown_it(tmp_path):
    def broken():
        network = build()
        network[1].register_buffer("unused", torch.tensor(torch.inf))
        return network

    with pytest.raises(Diverged, match=r"after epoch 0 .*'1.unused'.* not finite"):
        fit(tmp_path, build=broken)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_rate_that_is_far_too_large_ends_with_the_advice_to_lower_it(tmp_path):
    with pytest.raises(Diverged, match=r"Lower lr = 1e\+30 \(try a tenth\)"):
        fit(tmp_path, replace(RECIPE, lr=1e30, optimizer="sgd"))


NOT_A_RECIPE = [
    *[("optimizer", "adamm"), ("schedule", "poly"), ("objective", lambda *_: 0), ("objective", Gaussian)],
    *[(name, 0) for name in ("epochs", "batch_size", "lr_step", "lr", "sgd_lr", "gamma")],
    *[(name, -1.0) for name in ("momentum", "ema", "weight_decay", "seed")],
    *[(name, 1.0) for name in ("momentum", "ema")],
    *[(name, float("nan")) for name in ("lr", "sgd_lr", "gamma", "momentum", "ema", "weight_decay")],
]


@pytest.mark.parametrize(("field", "value"), NOT_A_RECIPE)
def test_a_recipe_that_makes_no_sense_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        replace(RECIPE, **{field: value})


@pytest.mark.parametrize("epoch", [0, 4, 9])
def test_sgd_that_would_never_have_its_turn_is_refused(epoch):
    with pytest.raises(ValueError, match="sgd_epoch must be from 1 to epochs - 1 = 3"):
        replace(RECIPE, optimizer="adam_then_sgd", sgd_epoch=epoch)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"optimizer": "adam_then_sgd", "sgd_epoch": 2, "schedule": "one-cycle"}, "one-cycle is one rise"),
        ({"optimizer": "adam", "nesterov": True}, "nesterov needs sgd with momentum; got adam"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov needs sgd with momentum; got sgd, momentum = 0.0"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        replace(RECIPE, **fields)


@pytest.mark.parametrize("compute", ["float16", "float32, folded", "quickly"])
def test_training_cannot_be_computed_in_every_way(compute):
    with pytest.raises(ValueError, match=r"training takes neither|compute = 'quickly'"):
        replace(RECIPE, compute=compute)


# ---- what else decides weights, and what cannot be trained -----------------------------------------------------


def small(change=lambda network: None):
    def build():
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
        change(network)
        return network

    return build


def scaled(std):
    return small(lambda network: nn.init.normal_(network[1].weight, std=std))


OTHER_NETWORKS = {
    "a frozen layer": small(lambda network: network[1].requires_grad_(False)),
    "another start": scaled(0.5),
    "a number kept as a plain tensor": small(lambda network: setattr(network, "mean", torch.tensor(0.5))),
    "a part used again": small(lambda network: network.extend([network[2]])),
}
FEW = TensorDataset(torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8))
BRIEF = Recipe(Gaussian(0.25), "small", epochs=1, batch_size=4, lr=0.01)


@pytest.mark.parametrize("build", OTHER_NETWORKS.values(), ids=OTHER_NETWORKS)
def test_another_network_or_another_start_is_other_weights(build):
    assert facts_of(BRIEF, build, FEW) != facts_of(BRIEF, small(), FEW) == facts_of(BRIEF, small(), FEW)


def test_tied_weights_are_kept_and_come_back(tmp_path):
    def tied():
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 10))
        network[3].weight = network[1].weight
        return network

    first = train(BRIEF, tied, FEW, tmp_path)
    again = train(BRIEF, tied, FEW, tmp_path)
    assert first[3].weight is first[1].weight and torch.equal(first[1].weight, again[3].weight)


def test_a_build_that_returns_one_network_again_and_again_is_refused(tmp_path):
    network = small()()
    with pytest.raises(ValueError, match="build must make a new network each time"):
        train(BRIEF, lambda: network, FEW, tmp_path)


@pytest.mark.parametrize(
    "change", [lambda x: 255 * x, lambda x: x - 0.5, lambda x: (255 * x).byte(), lambda x: x / 0], ids=range(4)
)
def test_training_images_that_are_not_in_the_scale_of_sigma_are_refused(change, tmp_path):
    images, labels = FEW.tensors
    with pytest.raises(ValueError, match=r"training images must be float in \[0, 1\]"):
        train(BRIEF, small(), TensorDataset(change(images), labels), tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
