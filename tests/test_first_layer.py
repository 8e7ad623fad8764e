"""The layer before a published network: found by folder, format and accuracy, said aloud, never on test images."""

import itertools
import os
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_checkpoints import jpeg_test_images  # noqa: F401, a fixture
from torch.utils.data import Dataset, TensorDataset

from lib.datasets import CIFAR10_CLASSES, CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD, Data, load_dataset
from lib.models import load_classifier
from lib.models.checkpoints import Checkpoint
from lib.models.classifiers import CifarResNet
from lib.models.first_layer import find_first_layer, first_layer, images_of_training, possible

CIFAR10 = Data("cifar10", None, None, 10, CIFAR10_CLASSES, (3, 32, 32), CIFAR10_MEAN, CIFAR10_STD)
TWO = Data("folder", None, None, 2, ("dark", "bright"), (3, 32, 32), CIFAR10_MEAN, CIFAR10_STD)
SHARED = Path(os.environ.get("KIT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def cohens_file(tmp_path, folder="models", arch="cifar_resnet20"):
    """A checkpoint in the format of Cohen et al. and of SmoothAdv, in some folder."""
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    path = tmp_path / folder / "checkpoint.pth.tar"
    state = {f"1.{key}": value for key, value in CifarResNet(20, "B").state_dict().items()}
    torch.save({"epoch": 90, "arch": arch, "state_dict": state}, path)
    return path


def macers_file(tmp_path):
    torch.save({"net": CifarResNet(20, "B").state_dict(), "epoch": 440}, tmp_path / "440.pth")
    return tmp_path / "440.pth"


def is_layer(module, name, data=CIFAR10):
    layer = first_layer(name, data)
    return torch.equal(module.mean, layer.mean) and torch.equal(module.std, layer.std)


def test_macers_networks_get_raw_pixels_and_a_warning_says_so(tmp_path):
    with pytest.warns(UserWarning, match=r"normalization='none' \(MACER's format, which is trained on raw pixels"):
        classifier = load_classifier(macers_file(tmp_path), CIFAR10, arch="cifar_resnet20")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(classifier(images), classifier[1](images))


FOLDERS = {
    "cifar10/PGD_4steps/eps_64/cifar10/resnet110/noise_0.12": "center",
    "cifar10/PGD_10steps_multiNoiseSamples/2-multitrain/eps_64/cifar10/resnet110/noise_0.12": "center",
    "cifar10/DDN_2steps/eps_127/cifar10/resnet110/noise_0.25": "center",
    "imagenet/PGD_1step/imagenet/eps_127/resnet50/noise_0.50": "center",
    "cifar10/finetune_cifar_from_imagenetPGD2steps/PGD_10steps_30epochs_multinoise/eps_64/noise_0.12": "standard",
    "cifar10/self_training/PGD_8steps_multiNoiseSamples/eps_64/resnet110/noise_0.12": "standard",
}  # the README of Hadisalman/smoothing-adversarial


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_smoothadvs_release_tells_its_layer_and_it_is_said(folder, tmp_path):
    with pytest.warns(UserWarning, match=f"normalization='{FOLDERS[folder]}' .the folder .* of SmoothAdv's release"):
        classifier = load_classifier(cohens_file(tmp_path, folder), CIFAR10)
    assert is_layer(classifier[0], FOLDERS[folder])


def test_where_nothing_tells_the_layer_it_is_said_that_it_was_assumed(tmp_path):
    with pytest.warns(UserWarning, match="SmoothAdv's files look alike.*no labelled images to check it with"):
        classifier = load_classifier(cohens_file(tmp_path), CIFAR10)
    assert is_layer(classifier[0], "standard")


@pytest.mark.parametrize("name", ["standard", "center", "imagenet", "none", "cifar10"])
def test_a_layer_that_is_given_is_taken_without_a_word(name, tmp_path):
    path = cohens_file(tmp_path, "cifar10/PGD_4steps/eps_64")
    with warnings.catch_warnings(action="error"):
        assert is_layer(load_classifier(path, CIFAR10, normalization=name)[0], name)


def test_an_unknown_layer_is_refused_before_the_weights_are_fitted(tmp_path):
    with pytest.raises(ValueError, match=r"normalization must be one of .*got normalization='centre'"):
        load_classifier(cohens_file(tmp_path), replace(CIFAR10, num_classes=7), normalization="centre")


class Ranges(torch.nn.Module):
    """Class 1 where every pixel lies between two bounds: right behind one layer only."""

    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x):
        inside = ((x > self.low) & (x < self.high)).flatten(1).all(1).float()
        return torch.stack([1 - inside, inside], dim=1)


def grey(count=20):
    """Images of one grey each, dark and bright, and their labels."""
    labels = torch.arange(count) % 2
    return (0.1 + 0.8 * labels.float()).view(-1, 1, 1, 1).expand(-1, 3, 32, 32).clone(), labels


def right_behind(name, data=TWO):
    """A network that tells dark from bright behind the layer `name` and guesses behind the others."""
    bright = first_layer(name, data)(torch.full((1, 3, 1, 1), 0.9))
    return Ranges(bright.min() - 0.01, bright.max() + 0.01)


RIGHT = ("standard", "center", "imagenet", "none")


@pytest.mark.parametrize("name", RIGHT)
def test_labelled_images_find_the_right_layer_and_the_accuracies_are_named(name):
    checkpoint = Checkpoint(Path("bare.pth"), {"fc.weight": torch.zeros(2)})
    with pytest.warns(UserWarning, match=rf"normalization='{name}'.*accuracy on 20 labelled.*{name} 1\.000"):
        assert find_first_layer(right_behind(name), checkpoint, "ResNet18", TWO, grey()) == name


@pytest.mark.parametrize("folder, name", list(itertools.product(["models", "PGD_4steps", "self_training"], RIGHT[:2])))
def test_labelled_images_outweigh_the_folder(folder, name, tmp_path):
    checkpoint = Checkpoint(tmp_path / folder / "c.pth", {"1.fc.weight": torch.zeros(2)}, "cifar_resnet110")
    with pytest.warns(UserWarning, match=f"normalization='{name}'"):
        assert find_first_layer(right_behind(name), checkpoint, "cifar_resnet110", TWO, grey()) == name


def test_a_small_difference_does_not_outweigh_the_folder(tmp_path):
    checkpoint = Checkpoint(tmp_path / "PGD_4steps" / "c.pth", {"1.fc.weight": torch.zeros(2)})
    images, labels = grey(4)  # "standard" is right for all 4, "center" for 2
    with pytest.warns(UserWarning, match=r"center 0\.500, standard 1\.000"):
        assert find_first_layer(right_behind("standard"), checkpoint, "resnet50", TWO, (images, labels)) == "center"


class Untouchable(Dataset):
    """Test images that nobody may look at."""

    def __getitem__(self, index):
        raise AssertionError("a test image was looked at")

    def __len__(self):
        return 100


@pytest.mark.parametrize("count", [1, 3, 150, 999])
def test_training_images_are_used_by_themselves_and_test_images_never(count):
    data = replace(TWO, train=TensorDataset(*grey(count)), test=Untouchable())
    checkpoint, used = Checkpoint(Path("bare.pth"), {"fc.weight": torch.zeros(2)}), min(count, 200)
    with pytest.warns(UserWarning, match=f"accuracy on {used} labelled images"):
        found = find_first_layer(right_behind("center"), checkpoint, "ResNet18", data)
    assert found == ("center" if count > 100 else found)


def test_the_global_generator_is_left_alone():
    data = replace(TWO, train=TensorDataset(*grey(500)))
    state = torch.random.get_rng_state()
    with pytest.warns(UserWarning, match="accuracy"):
        find_first_layer(right_behind("none"), Checkpoint(Path("b"), {"a": torch.zeros(1)}), "ResNet18", data)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_training_images_on_the_disk_are_seen_without_augmentation_and_from_all_classes(tmp_path):
    for split, count in (("train", 130), ("test", 1)):
        for name, value in (("bright", 230), ("dark", 25)):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.effect_noise((80, 70), value / 5).convert("RGB").save(tmp_path / split / name / f"{i}.png")
    data = load_dataset("folder", tmp_path)
    state = torch.random.get_rng_state()
    (images, labels), (again, _) = (images_of_training(data) for _ in range(2))
    assert torch.equal(images, again) and torch.equal(torch.random.get_rng_state(), state)
    assert images.shape == (200, 3, 224, 224) and 80 < labels.sum() < 120


IMAGES, LABELS = grey(4)
WRONG = {
    "no images": (IMAGES[:0], LABELS[:0]),
    "fewer labels": (IMAGES, LABELS[:3]),
    "another shape": (IMAGES[:, :1], LABELS),
    "floats as labels": (IMAGES, LABELS.float()),
    "a label that is no class": (IMAGES, LABELS + 1),
    "negative labels": (IMAGES, LABELS - 1),
    "pixels from 0 to 255": (IMAGES * 255, LABELS),
    "normalised pixels": (IMAGES - 0.5, LABELS),
}


@pytest.mark.parametrize("labelled", WRONG.values(), ids=WRONG)
def test_labelled_images_that_cannot_be_are_refused(labelled):
    with pytest.raises(ValueError, match="labelled "):
        find_first_layer(right_behind("none"), Checkpoint(Path("b"), {"a": torch.zeros(1)}), "ResNet18", TWO, labelled)


def test_layers_that_compute_the_same_are_one_choice():
    data = replace(TWO, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    with pytest.warns(UserWarning, match=r"another one of \['standard', 'center', 'none'\]"):
        find_first_layer(right_behind("none"), Checkpoint(Path("b"), {"a": torch.zeros(1)}), "resnet18", data)


def test_kuangliu_saves_under_the_same_name_as_macer_and_is_not_taken_for_it():
    checkpoint = Checkpoint(Path("ckpt.pth"), {"linear.weight": torch.zeros(1)}, entry="net")
    assert possible(checkpoint, "ResNet18")[0][0] == "standard"


@pytest.mark.parametrize("wrong", ["standard", "center", "none"])
def test_a_real_network_is_found_out_by_the_accuracy_on_a_hundred_images(wrong, jpeg_test_images):  # noqa: F811
    """akamaster's ResNet-20 made to look like a file of another format; (these images are no training images)."""
    images, labels = (part[:100] for part in jpeg_test_images)
    (path,) = (SHARED / "resnet_cifar10").glob("resnet20-*.th")
    network = load_classifier(path, CIFAR10, arch="cifar_resnet20")[1]
    right, other = first_layer("imagenet", CIFAR10), replace(CIFAR10, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert is_layer(right, "standard", other)
    checkpoint = Checkpoint(Path("PGD_4steps/c.pth") if wrong == "center" else Path("c.pth"), {"a": torch.zeros(1)})
    if wrong == "none":
        checkpoint = Checkpoint(Path("c.pth"), {"a": torch.zeros(1)}, entry="net")
    with pytest.warns(UserWarning, match="normalization='standard'.*accuracy on 100"):
        found = find_first_layer(network, checkpoint, "cifar_resnet20", other, (images, labels))
    assert found == "standard"
