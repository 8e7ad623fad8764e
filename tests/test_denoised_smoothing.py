"""Denoised smoothing from a notebook's parameters: which images train, which choose, and what is kept."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lib import methods
from lib.config import NOTEBOOKS, DenoisedSmoothing, DiffusionDenoising, load_profile
from lib.datasets import load_dataset
from lib.exercises.denoising import stab_loss
from lib.methods import cohen2019, salman2020
from lib.methods.common import in_numbers
from lib.models import DENOISERS, Denoised, build_classifier
from lib.models.classifiers import DigitsCNN
from lib.models.surrogates import CIFAR_SURROGATES
from lib.sampling import class_counts
from lib.training import Recipe
from lib.training.objectives import MSE, Classification, Stability, Step, add_noise

DATA = load_dataset("digits")
SMALL = replace(DATA, train=TensorDataset(*DATA.train[:200]))
ONE = "1 epochs of 256, adam 1e-3"


@pytest.fixture
def cfg(tmp_path):
    """Parameters that train everything for one epoch."""
    return DenoisedSmoothing(run_dir=str(tmp_path), epochs=1, train_batch=256, mse=ONE, stab=ONE, stab_mse=(ONE,))


@pytest.fixture
def trained_on(monkeypatch):
    """Every call of `train`: (recipe, data set, fresh network), as the methods make it; nothing is trained."""
    calls = []

    def record(recipe, build, dataset, *_, **__):
        network = build().eval()
        calls.append((recipe, dataset, network))
        return network.requires_grad_(False)

    for paper in (cohen2019, salman2020):
        monkeypatch.setattr(paper, "train", record)
    return calls


def as_set(dataset):
    return {image.numpy().tobytes() for image, _ in dataset}


def weights(network):
    return torch.cat([value.flatten().float() for value in network.state_dict().values()])


@pytest.fixture
def f():
    return build_classifier("digits_cnn", DATA).eval().requires_grad_(False)


# ---- which images ----------------------------------------------------------------------------------------------


def test_held_out_images_are_neither_test_images_nor_trained_on_by_any_denoiser(cfg, trained_on, f):
    _, held_out = salman2020._split(cfg, DATA)
    methods.mse_denoiser(cfg, DATA, 0.5)
    methods.stab_denoiser(cfg, DATA, 0.5, f)
    methods.stab_mse_denoiser(cfg, DATA, 0.5, f)
    assert len(held_out) == 195 and as_set(held_out) <= as_set(DATA.train)
    assert as_set(held_out).isdisjoint(as_set(DATA.test))
    assert [as_set(dataset).isdisjoint(as_set(held_out)) for _, dataset, _ in trained_on] == [True] * len(trained_on)


def test_settings_are_compared_without_a_test_image(cfg, f):
    blind = replace(DATA, test=None)
    assert 0 <= methods.held_out_stability(cfg, blind, 0.5, nn.Identity().eval(), f) <= 1


def test_of_a_large_data_set_no_more_than_1000_images_are_held_out(cfg):
    large = replace(DATA, train=TensorDataset(torch.zeros(9000, 1), torch.zeros(9000)))
    assert [len(part) for part in salman2020._split(cfg, large)] == [8000, 1000]


@pytest.mark.parametrize("train", [None, TensorDataset(torch.zeros(0, 1, 8, 8), torch.zeros(0).long())])
def test_without_training_images_every_method_says_so_before_anything_starts(train, cfg, trained_on, f):
    blind = replace(DATA, train=train)
    for method in (
        lambda: methods.noise_trained_classifier(cfg, blind, 0.5),
        lambda: methods.clean_classifier(cfg, blind),
        lambda: methods.mse_denoiser(cfg, blind, 0.5),
        lambda: methods.stab_denoiser(cfg, blind, 0.5, f),
        lambda: methods.stab_mse_denoiser(cfg, blind, 0.5, f),
        lambda: methods.held_out_stability(cfg, blind, 0.5, f, f),
        lambda: methods.diffusion_model(DiffusionDenoising(run_dir=cfg.run_dir), blind),
    ):
        with pytest.raises(ValueError, match="digits has no training images: put them into"):
            method()
    assert trained_on == []


def test_fewer_images_are_another_training(cfg):
    folder = cfg.run_path / "weights"
    for data in (SMALL, replace(DATA, train=TensorDataset(*DATA.train[:199])), SMALL):
        methods.noise_trained_classifier(cfg, data, 0.5)
    assert len(list(folder.glob("*.safetensors"))) == 2


# ---- which setting ---------------------------------------------------------------------------------------------


class Scaled(nn.Module):
    """f's images, darkened: at 0 every image is the same to f."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, images):
        return self.factor * images


def bright(threshold):
    """A classifier of two classes: is the mean pixel above `threshold`?"""

    class Bright(nn.Module):
        def forward(self, images):
            brightness = images.mean((1, 2, 3)) - threshold
            return torch.stack([-brightness, brightness], 1)

    return Bright().eval()


def test_stability_is_how_often_the_answer_is_kept(cfg):
    half = Scaled(0.0).eval()  # class 0 for every image
    two = replace(DATA, num_classes=2)
    _, held_out = salman2020._split(cfg, DATA)
    means = torch.stack([image.mean() for image, _ in held_out])
    f = bright(float(means.median()) + 1e-4)
    expected = (means <= float(means.median()) + 1e-4).float().mean().item()
    assert methods.held_out_stability(cfg, two, 0.25, half, f) == pytest.approx(expected)


def test_stability_of_a_black_box_denoiser_is_the_mean_over_surrogates(cfg):
    two, family = replace(DATA, num_classes=2), [bright(0.2), bright(0.35)]
    single = [methods.held_out_stability(cfg, two, 0.5, nn.Identity().eval(), f) for f in family]
    assert single[0] != single[1]
    both = methods.held_out_stability(cfg, two, 0.5, nn.Identity().eval(), family)
    assert both == pytest.approx(sum(single) / 2)


@pytest.mark.parametrize("best", [0, 1, 2])
def test_the_setting_that_keeps_most_answers_wins(best, cfg, monkeypatch):
    ways = {f"way {i}": Scaled(1.0 if i == best else 0.0).eval() for i in range(3)}
    monkeypatch.setattr(salman2020, "_stab_mse_denoisers", lambda *_: ways)
    two = replace(DATA, num_classes=2)
    assert methods.stab_mse_denoiser(cfg, two, 0.1, bright(0.3)) is ways[f"way {best}"]


def test_training_images_are_copied_once_for_all_ways_to_fine_tune(cfg, trained_on, f, monkeypatch):
    splits, holdout = [], salman2020.holdout
    monkeypatch.setattr(salman2020, "holdout", lambda *a: splits.append(a) or holdout(*a))
    ways = ("2 epochs of 64, adam 1e-4", "3 epochs of 64, sgd 1e-5")
    methods.stab_mse_denoiser(replace(cfg, stab_mse=ways), SMALL, 0.5, f)
    assert len(splits) == 1 and len(trained_on) == 3


# ---- which recipe ----------------------------------------------------------------------------------------------


def test_stab_mse_starts_from_the_weights_of_mse(cfg, trained_on, f):
    cfg = replace(cfg, stab_mse=("2 epochs of 64, adam 1e-4", "3 epochs of 64, sgd 1e-5"))
    methods.stab_mse_denoisers(cfg, DATA, 0.5, f)
    (start, _, restored), *tuned = trained_on
    assert [type(start.objective), *(type(r.objective) for r, _, _ in tuned)] == [MSE, Stability, Stability]
    assert [(r.optimizer, r.lr, r.epochs) for r, _, _ in tuned] == [("adam", 1e-4, 2), ("sgd", 1e-5, 3)]
    assert all(torch.equal(weights(network), weights(restored)) for _, _, network in tuned)


def test_a_way_that_makes_no_sense_is_refused_before_the_first_training(cfg, trained_on, f):
    with pytest.raises(ValueError, match=r"stab_mse = .*after must be below the 2 epochs"):
        methods.stab_mse_denoiser(replace(cfg, stab_mse=("2 epochs of 64, adam 1e-3, sgd 1e-3 after 2",)), DATA, 0.5, f)
    assert trained_on == []


def test_each_way_to_fine_tune_starts_from_mse_and_not_from_the_result_of_the_other(cfg, f, tmp_path):
    other = "1 epochs of 256, sgd 1e-2"
    before = weights(methods.mse_denoiser(cfg, SMALL, 0.5))
    both = methods.stab_mse_denoisers(replace(cfg, stab_mse=(ONE, other)), SMALL, 0.5, f)
    alone = replace(cfg, stab_mse=(other,), run_dir=str(tmp_path / "alone"))
    assert torch.equal(weights(both[other]), weights(methods.stab_mse_denoiser(alone, SMALL, 0.5, f)))
    assert not torch.equal(weights(both[ONE]), before)


def test_another_classifier_is_another_recipe(cfg, trained_on, f):
    other = DigitsCNN().eval().requires_grad_(False)
    for classifiers in (f, other, [f, other], [other, f]):
        methods.stab_denoiser(cfg, DATA, 0.5, classifiers)
    assert len({str(recipe.plain()) for recipe, _, _ in trained_on}) == 4


def test_stab_and_clf_are_different_recipes(cfg, trained_on, f):
    for labels in (False, True):
        methods.stab_mse_denoisers(cfg, DATA, 0.5, f, labels=labels)
    assert [type(recipe.objective) for recipe, _, _ in trained_on] == [MSE, Stability, MSE, Classification]


@pytest.mark.parametrize(
    "words, fields",
    [
        ("90 epochs of 256, adam 1e-3", {"epochs": 90, "batch_size": 256, "optimizer": "adam", "lr": 1e-3}),
        ("5 epochs of 64, sgd 0.01", {"epochs": 5, "batch_size": 64, "optimizer": "sgd", "lr": 0.01}),
        (
            "90 epochs of 256, adam 1e-3, sgd 1e-4 after 50",
            {"epochs": 90, "optimizer": "adam_then_sgd", "lr": 1e-3, "sgd_lr": 1e-4, "sgd_epoch": 50},
        ),
    ],
)
def test_words_become_the_numbers_of_a_recipe(words, fields, cfg):
    numbers = in_numbers(DenoisedSmoothing(stab=words).stab)
    recipe = Recipe(MSE(0.5), "digits_dncnn", **numbers)
    assert {name: getattr(recipe, name) for name in fields} == fields


@pytest.mark.parametrize("words", ["adam 1e-3", "0 epochs of 64, adam 1e-3", "9 epochs of 64, adamw 1e-3", "", "9"])
def test_words_that_name_no_training_are_refused(words):
    with pytest.raises(ValueError, match=r"^stab_mse\[0\] = .*expected 90 epochs of 256, adam 1e-3"):
        DenoisedSmoothing(stab_mse=[words])


# ---- the classifier --------------------------------------------------------------------------------------------


def test_the_clean_classifier_is_trained_without_noise(cfg, trained_on):
    methods.clean_classifier(cfg, DATA)
    methods.clean_classifier(cfg, DATA, "digits_mlp")
    assert [(r.arch, r.objective.sigma) for r, _, _ in trained_on] == [("digits_cnn", 0.0), ("digits_mlp", 0.0)]


def test_a_clean_classifier_may_come_from_a_file(cfg, f, tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    torch.save({"state_dict": f[1].state_dict()}, tmp_path / "clean.pth")
    loaded = methods.clean_classifier(replace(cfg, classifier="clean.pth", normalization="standard"), DATA)
    assert torch.equal(loaded(DATA.test.tensors[0][:9]), f(DATA.test.tensors[0][:9])) and not loaded.training


@pytest.mark.parametrize(
    "name, asked",
    [
        ("torchvision:resnet50@IMAGENET1K_V1", ("torchvision:resnet50", "IMAGENET1K_V1")),
        ("timm:resnet18.a1_in1k", ("timm:resnet18.a1_in1k", "published")),
    ],
)
def test_a_clean_classifier_may_come_from_a_library_with_a_set_of_weights(name, asked, cfg, monkeypatch):
    monkeypatch.setattr(cohen2019, "load_classifier", lambda network, data, weights: Named((network, weights)))
    assert methods.clean_classifier(replace(cfg, classifier=name), DATA).name == asked


class Named(nn.Module):
    """A module that knows what was asked for."""

    def __init__(self, name):
        super().__init__()
        self.name = name


def test_a_denoised_classifier_of_two_parts_in_eval_mode_can_be_sampled_at_once(f):
    assert not Denoised(nn.Identity().eval(), f).training
    assert Denoised(nn.Identity(), f).training


def test_the_stab_loss_that_readers_write_is_the_one_that_denoisers_are_trained_with(f):
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6)
    seeded, denoise = torch.Generator(), nn.Conv2d(1, 1, 3, padding=1)
    noisy = add_noise(images, 0.5, seeded.manual_seed(3))
    trained = Stability(0.5, f)(denoise, images, labels, Step(seeded.manual_seed(3)))
    assert torch.equal(stab_loss(f, denoise, images, labels, noisy), trained)


class Oracle(nn.Module):
    """A denoiser that knows the clean images and returns the nearest."""

    def __init__(self, clean):
        super().__init__()
        self.clean = clean

    def forward(self, noisy):
        return self.clean[torch.cdist(noisy.flatten(1), self.clean.flatten(1)).argmin(1)]


def test_a_denoiser_that_returns_the_clean_image_gives_exactly_the_counts_of_the_clean_classifier(f):
    images = DATA.test.tensors[0][:12]
    counts = class_counts(Denoised(Oracle(images).eval(), f), images, range(12), 200, sigma=0.12, num_classes=10)
    expected = 200 * nn.functional.one_hot(f(images).argmax(1), 10)
    assert torch.equal(counts, expected)


# ---- profiles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["digits", "cifar10", "imagenet"])
def test_a_profile_names_denoisers_and_surrogates_that_exist_and_none_is_the_target(profile):
    made = DenoisedSmoothing(**load_profile(profile, "02_denoised_smoothing"))
    assert set(made.denoisers) <= set(DENOISERS)
    assert not {made.arch, made.classifier} & set(made.surrogates)


def test_the_profiles_of_the_paper_keep_its_settings():
    cifar10, imagenet = (
        DenoisedSmoothing(**load_profile(name, "02_denoised_smoothing")) for name in ("cifar10", "imagenet")
    )
    assert [(made.n, made.n0, made.alpha) for made in (cifar10, imagenet)] == [(10_000, 100, 0.001)] * 2
    assert [(made.skip, made.images) for made in (cifar10, imagenet)] == [(20, 500), (100, 500)]
    assert cifar10.surrogates == tuple(CIFAR_SURROGATES)
    tuned = [in_numbers(way) for way in cifar10.stab_mse]
    assert {(way["optimizer"], way["lr"], way["epochs"]) for way in tuned} == {
        (optimizer, lr, 20) for optimizer in ("adam", "sgd") for lr in (1e-4, 1e-5)
    }
    assert in_numbers(imagenet.mse) == {"epochs": 5, "batch_size": 256, "optimizer": "adam", "lr": 1e-4}


def test_notebooks_01_and_02_share_the_classifiers_trained_on_noise(trained_on, tmp_path):
    for name in ("01_randomized_smoothing", "02_denoised_smoothing"):
        for profile in ("digits", "cifar10"):
            made = NOTEBOOKS[name](**load_profile(profile, name))
            data = (
                DATA if profile == "digits" else replace(DATA, image_shape=(3, 32, 32), mean=(0.5,) * 3, std=(1,) * 3)
            )
            methods.noise_trained_classifier(made, data, 0.25)
    recipes = [recipe.plain() for recipe, _, _ in trained_on]
    assert recipes[:2] == recipes[2:]
