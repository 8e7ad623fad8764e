"""The classifier that others defend, as a notebook names it: a file, a library's network, or trained here."""

import warnings
from dataclasses import dataclass, replace

import pytest
import torch
from torch.utils.data import TensorDataset

from lib.datasets import load_dataset
from lib.methods import clean_classifier, cohen2019
from lib.models import build_classifier
from lib.models.first_layer import first_layer
from lib.models.surrogates import DIGITS_SURROGATES

DIGITS = load_dataset("digits")


@dataclass(frozen=True)
class Parameters:
    """As much of a notebook's parameters as a classifier needs."""

    arch: str = "digits_cnn"
    classifier: str = ""
    normalization: str = ""
    surrogates: tuple[str, ...] = ()
    device: str = "cpu"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A bare state_dict of digits_cnn below the kit's root."""
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    torch.save(build_classifier("digits_cnn", DIGITS)[1].state_dict(), tmp_path / "clean.pth")
    return tmp_path / "clean.pth"


def is_layer(module, name):
    layer = first_layer(name, DIGITS)
    return torch.equal(module.mean, layer.mean) and torch.equal(module.std, layer.std)


@pytest.mark.parametrize("name", ["standard", "center", "none"])
def test_the_first_layer_of_a_file_can_be_said_from_a_notebook(name, file):
    with warnings.catch_warnings(action="error"):
        classifier = clean_classifier(Parameters(classifier="clean.pth", normalization=name), DIGITS)
    assert is_layer(classifier[0], name)


def test_otherwise_it_is_found_on_training_images_and_said(file):
    with pytest.warns(UserWarning, match="accuracy on 200 labelled images"):
        clean_classifier(Parameters(classifier="clean.pth"), replace(DIGITS, test=None))


def test_without_training_images_it_is_said_that_there_were_none(file):
    with pytest.warns(UserWarning, match="no labelled images to check it with"):
        clean_classifier(Parameters(classifier="clean.pth"), replace(DIGITS, train=None))


def test_a_file_needs_no_ending(file):
    file.rename(file.with_name("clean"))
    cfg = Parameters(classifier="clean", normalization="standard")
    assert is_layer(clean_classifier(cfg, DIGITS)[0], "standard")


@pytest.mark.parametrize("classifier", ["", "digits_mlp", "timm:resnet18", "torchvision:resnet18@IMAGENET1K_V1"])
def test_a_first_layer_for_what_has_its_own_is_refused(classifier):
    with pytest.raises(ValueError, match=r"normalization='center' is for a weights file, .* leave it empty"):
        clean_classifier(Parameters(classifier=classifier, normalization="center"), DIGITS)


def test_a_surrogate_from_a_file_is_of_the_architecture_that_the_file_names(file):
    state = DIGITS_SURROGATES["digits_mlp"](10).state_dict()
    torch.save({"arch": "digits_mlp", "state_dict": state}, file.with_name("surrogate.pth"))
    cfg = Parameters(surrogates=("surrogate.pth",), normalization="standard")
    loaded = clean_classifier(cfg, DIGITS, "surrogate.pth")[1].state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("absolute", [True, False])
def test_the_weights_file_of_a_librarys_network_stands_below_the_kits_root(absolute, file, monkeypatch):
    asked = {}
    monkeypatch.setattr(cohen2019, "load_classifier", lambda name, data, weights: asked.update(weights=weights) or FAKE)
    clean_classifier(Parameters(classifier=f"timm:resnet18@{file if absolute else 'clean.pth'}"), DIGITS)
    assert asked == {"weights": str(file)}


FAKE = torch.nn.Identity()


def test_a_noise_trained_surrogate_is_still_trained_where_a_first_layer_is_said_for_the_file(file, monkeypatch):
    monkeypatch.setattr(cohen2019, "noise_trained_classifier", lambda cfg, data, sigma: (cfg.arch, sigma))
    cfg = Parameters(classifier="clean.pth", normalization="center", surrogates=("digits_mlp",))
    few = replace(DIGITS, train=TensorDataset(*DIGITS.train[:8]))
    assert clean_classifier(cfg, few, "digits_mlp") == ("digits_mlp", 0.0)


def test_a_file_that_is_given_by_itself_may_name_another_architecture_and_one_in_the_parameters_may_not(tmp_path):
    arch = DIGITS_SURROGATES[0] if isinstance(DIGITS_SURROGATES, (list, tuple)) else next(iter(DIGITS_SURROGATES))
    state = build_classifier(arch, DIGITS).state_dict()
    torch.save({"arch": arch, "state_dict": state}, tmp_path / "other.pth")
    path = str(tmp_path / "other.pth")
    with pytest.raises(ValueError, match=f"holds arch '{arch}', asked for arch='digits_cnn'"):
        clean_classifier(Parameters(classifier=path), DIGITS)
    network = clean_classifier(Parameters(normalization="standard"), DIGITS, path)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in state.items())
