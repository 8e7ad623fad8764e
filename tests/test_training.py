import dataclasses
import json
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam
from torch.utils.data import TensorDataset

from lib.training import Recipe, loop, train
from lib.training.objectives import gaussian

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(96, 1, 8, 8, generator=GENERATOR)
LABELS = (IMAGES[:, 0, :4].mean((1, 2)) > IMAGES[:, 0, 4:].mean((1, 2))).long()  # is the upper half brighter?
DATASET = TensorDataset(IMAGES, LABELS)
RECIPE = Recipe("gaussian", "halves", "mlp", 0.1, epochs=4, batch_size=32, lr=0.05, lr_step=2)


def build():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2)
    )


def fit(folder, recipe=RECIPE, objective=None, dataset=DATASET, **keywords):
    return train(recipe, build, objective or gaussian(recipe.sigma), dataset, folder, **keywords)


def weights(model):
    return torch.cat([tensor.flatten().float() for tensor in model.state_dict().values()])


def test_training_learns(tmp_path):
    model = fit(tmp_path, dataclasses.replace(RECIPE, epochs=60, lr_step=60, sigma=0.02))
    assert (model(IMAGES).argmax(1) == LABELS).float().mean() > 0.9


def test_the_same_recipe_gives_the_same_weights(tmp_path):
    assert torch.equal(weights(fit(tmp_path / "a")), weights(fit(tmp_path / "b")))


def test_another_seed_gives_other_weights(tmp_path):
    other = dataclasses.replace(RECIPE, seed=1)
    assert not torch.equal(weights(fit(tmp_path)), weights(fit(tmp_path, other)))


def test_the_model_comes_back_frozen_and_in_eval_mode(tmp_path):
    model = fit(tmp_path)
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_an_unchanged_recipe_is_loaded_and_not_trained_again(tmp_path):
    first = weights(fit(tmp_path))
    again = fit(tmp_path, objective=lambda *_: pytest.fail("trained again"))
    assert torch.equal(weights(again), first)


@pytest.mark.parametrize(
    "field", [f.name for f in dataclasses.fields(Recipe) if f.type in ("int", "float", int, float)]
)
def test_every_number_of_the_recipe_is_in_its_hash(field):
    changed = dataclasses.replace(RECIPE, **{field: getattr(RECIPE, field) + 1})
    assert changed.hash != RECIPE.hash


def test_the_recipe_is_written_beside_the_weights(tmp_path):
    fit(tmp_path)
    written = json.loads((tmp_path / f"{RECIPE.hash}.json").read_text())["recipe"]
    assert Recipe(**written | {"frozen": tuple(written["frozen"])}) == RECIPE
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{RECIPE.hash}.json", f"{RECIPE.hash}.safetensors"]


class Interrupted(Exception):
    pass


def interrupt_after(batches):
    inner, seen = gaussian(RECIPE.sigma), []

    def objective(*arguments):
        seen.append(1)
        if len(seen) > batches:
            raise Interrupted
        return inner(*arguments)

    return objective


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adam_then_sgd"])
@pytest.mark.parametrize("batches", [4, 8, 11])  # three batches an epoch: in the middle, and late
def test_an_interrupted_run_ends_with_the_same_weights(optimizer, batches, tmp_path):
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, sgd_epoch=2, ema=0.9)
    with pytest.raises(Interrupted):
        fit(tmp_path, recipe, interrupt_after(batches))
    assert not list(tmp_path.glob("*.safetensors"))
    assert torch.equal(weights(fit(tmp_path, recipe)), weights(fit(tmp_path / "whole", recipe)))


def test_adam_then_sgd_really_switches(tmp_path, monkeypatch):
    stepped = []
    for kind in (Adam, SGD):
        original = kind.step
        monkeypatch.setattr(
            kind, "step", lambda self, *a, f=original, k=kind, **b: (stepped.append(k), f(self, *a, **b))
        )
    fit(tmp_path, dataclasses.replace(RECIPE, optimizer="adam_then_sgd", sgd_epoch=1))
    assert stepped == [Adam] * 3 + [SGD] * 9


def test_the_moving_average_is_kept_in_place_of_the_last_weights(tmp_path):
    plain, averaged = fit(tmp_path), fit(tmp_path, dataclasses.replace(RECIPE, ema=0.999))
    start = loop._seeded_build(RECIPE, build)
    assert (weights(averaged) - weights(start)).norm() < 0.5 * (weights(plain) - weights(start)).norm()


def test_step_schedule_divides_the_rate_where_the_recipe_says(tmp_path):
    state = loop._State(RECIPE, build())
    rates = []
    for epoch in range(4):
        rates.append(state.optimizer.param_groups[0]["lr"])
        state.optimizer.step()
        state.end_epoch(epoch)
    assert rates == pytest.approx([0.05, 0.05, 0.005, 0.005])


def test_gaussian_noise_has_the_level_it_says_and_is_not_clipped():
    seen = []
    gaussian(0.5)(
        lambda x: seen.append(x) or torch.zeros(len(x), 2),
        torch.ones(2000, 1, 4, 4),
        torch.zeros(2000).long(),
        GENERATOR,
    )
    assert seen[0].std() == pytest.approx(0.5, rel=0.02) and seen[0].max() > 2


def test_the_global_random_state_is_left_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    fit(tmp_path)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("field", "value"), [("optimizer", "adamm"), ("schedule", "poly"), ("epochs", 0), ("sigma", -1.0)]
)
def test_a_recipe_that_makes_no_sense_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(RECIPE, **{field: value})


@pytest.mark.parametrize("compute", ["bfloat16", "bfloat16, channels-last", "float32, compiled"])
def test_training_learns_however_it_is_computed(compute, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # needs no C++ compiler
    recipe = dataclasses.replace(RECIPE, epochs=60, lr_step=60, sigma=0.02, compute=compute)
    model = fit(tmp_path, recipe)
    assert (model(IMAGES).argmax(1) == LABELS).float().mean() > 0.9
    assert recipe.hash != dataclasses.replace(recipe, compute="float32").hash


@pytest.mark.parametrize("compute", ["float16", "float32, folded", "quickly"])
def test_training_cannot_be_computed_in_every_way(compute):
    with pytest.raises(ValueError, match=r"training takes neither|compute = 'quickly'"):
        dataclasses.replace(RECIPE, compute=compute)
