"""Checkpoint files: the published layouts load, and whatever does not fit is refused with its reason."""

import io
import json
import os
import tarfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.utils.data import TensorDataset

from lib.datasets import CIFAR10_CLASSES, CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD, Data, load_dataset
from lib.models import build_classifier, load_classifier
from lib.models.checkpoints import read_checkpoint
from lib.models.classifiers import CifarResNet
from lib.training import Recipe, train
from lib.training.objectives import Gaussian

CIFAR10 = Data("cifar10", None, None, 10, CIFAR10_CLASSES, (3, 32, 32), CIFAR10_MEAN, CIFAR10_STD)
IMAGENET = Data("imagenet", None, None, 1000, (), (3, 224, 224), IMAGENET_MEAN, IMAGENET_STD)
SHARED = Path(os.environ.get("KIT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
pytestmark = pytest.mark.filterwarnings("ignore:.*its first layer is taken to be")  # see test_first_layer.py
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def resnet110_shapes():
    """Name -> shape of every weight in Cohen et al.'s CIFAR-10 files, spelled out."""

    def norm(name, channels):
        return {f"{name}.{part}": () if part == NORM[-1] else (channels,) for part in NORM}

    shapes = {"1.conv1.weight": (16, 3, 3, 3)} | norm("1.bn1", 16)
    for stage, channels in ((1, 16), (2, 32), (3, 64)):
        for block in range(18):
            name = f"1.layer{stage}.{block}"
            inputs = channels // 2 if stage > 1 and block == 0 else channels
            shapes |= {f"{name}.conv1.weight": (channels, inputs, 3, 3)} | norm(f"{name}.bn1", channels)
            shapes |= {f"{name}.conv2.weight": (channels, channels, 3, 3)} | norm(f"{name}.bn2", channels)
            if inputs != channels:
                shapes |= {f"{name}.downsample.0.weight": (channels, inputs, 1, 1)}
                shapes |= norm(f"{name}.downsample.1", channels)
    return shapes | {"1.fc.weight": (10, 64), "1.fc.bias": (10,)}


def weights(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def published(state, arch, path, legacy=False):
    """Write what the papers' training scripts write: epoch, arch, state_dict and the optimizer's state."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    content = {"epoch": 90, "arch": arch, "state_dict": state, "optimizer": optimizer.state_dict()}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def unprefixed(state, prefix):
    return {key.removeprefix(prefix): value for key, value in state.items()}


def assert_holds(network, state):
    assert set(network.state_dict()) == set(state)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_a_classifier_of_ours_has_the_names_and_shapes_of_cohens_files():
    state = build_classifier("cifar_resnet110", CIFAR10).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == resnet110_shapes()


@pytest.mark.parametrize("legacy", [True, False])
def test_cohens_resnet110_loads_without_naming_its_architecture(tmp_path, legacy):
    state = weights(resnet110_shapes())
    path = published(state, "cifar_resnet110", tmp_path / "checkpoint.pth.tar", legacy)
    for key in (k for k in state if k.endswith("num_batches_tracked")):
        state[key] = torch.tensor(0)  # written as a float in [0, 1), kept as the integer that it is
    assert_holds(load_classifier(path, CIFAR10), state)


def test_cohens_resnet50_loads_with_its_dataparallel_inside_the_sequential(tmp_path):
    from torchvision.models import resnet50

    state = resnet50().state_dict()
    wrapped = {f"1.module.{key}": value for key, value in state.items()}
    path = published(wrapped, "resnet50", tmp_path / "checkpoint.pth.tar")
    assert_holds(load_classifier(path, IMAGENET)[1], state)


def test_torchvisions_bare_file_loads_under_the_same_name(tmp_path):
    from torchvision.models import resnet18

    state = resnet18().state_dict()
    torch.save(state, tmp_path / "resnet18.pth")
    assert_holds(load_classifier(tmp_path / "resnet18.pth", IMAGENET, arch="resnet18")[1], state)


def test_our_own_safetensors_load_with_the_architecture_of_their_metadata(tmp_path):
    state = build_classifier("cifar_resnet20", CIFAR10).state_dict()
    save_file(state, tmp_path / "ours.safetensors", metadata={"arch": "cifar_resnet20"})
    assert_holds(load_classifier(tmp_path / "ours.safetensors", CIFAR10), state)


@pytest.mark.parametrize("arch", ["VGG16", "timm:test_resnet"])
def test_whatever_is_built_here_loads_again(tmp_path, arch):
    state = build_classifier(arch, CIFAR10).state_dict()
    save_file(state, tmp_path / "ours.safetensors")
    assert_holds(load_classifier(tmp_path / "ours.safetensors", CIFAR10, arch=arch), state)


def test_macers_files_keep_their_weights_under_net(tmp_path):
    state = weights(unprefixed(resnet110_shapes(), "1."))
    torch.save({"net": state, "epoch": 440}, tmp_path / "440.pth")
    assert set(read_checkpoint(tmp_path / "440.pth").state) == set(state)


def akamaster_state():
    """The layout of akamaster's files: under DataParallel, the last layer `linear`, no batch counters."""
    state = unprefixed(build_classifier("cifar_resnet20", CIFAR10).state_dict(), "1.")
    state = {key.replace("fc.", "linear."): value for key, value in state.items()}
    return {f"module.{key}": value for key, value in state.items() if not key.endswith(NORM[-1])}


def test_akamasters_layout_loads_and_is_normalised_as_imagenet(tmp_path):
    state = akamaster_state()
    torch.save({"best_prec1": 91.7, "state_dict": state}, tmp_path / "resnet20.th")
    classifier = load_classifier(tmp_path / "resnet20.th", CIFAR10, arch="cifar_resnet20")
    torch.testing.assert_close(classifier[0].mean.flatten(), torch.tensor(IMAGENET_MEAN))
    assert torch.equal(classifier[1].fc.weight, state["module.linear.weight"])


@pytest.mark.parametrize("normalization, std", [(None, CIFAR10_STD), ("center", (1.0, 1.0, 1.0))])
def test_the_input_layer_is_chosen_by_the_caller_because_files_do_not_record_it(tmp_path, normalization, std):
    path = published(weights(resnet110_shapes()), "cifar_resnet110", tmp_path / "checkpoint.pth.tar")
    layer = load_classifier(path, CIFAR10, normalization=normalization)[0]
    torch.testing.assert_close(layer.mean.flatten(), torch.tensor(CIFAR10_MEAN))
    torch.testing.assert_close(layer.std.flatten(), torch.tensor(std))


def test_another_architecture_than_the_stored_one_is_refused(tmp_path):
    path = published(weights(resnet110_shapes()), "cifar_resnet110", tmp_path / "checkpoint.pth.tar")
    with pytest.raises(ValueError, match="holds arch 'cifar_resnet110', asked for arch='cifar_resnet20'"):
        load_classifier(path, CIFAR10, arch="cifar_resnet20")


def test_a_file_that_does_not_name_its_architecture_asks_for_it(tmp_path):
    torch.save(akamaster_state(), tmp_path / "resnet20.th")
    with pytest.raises(ValueError, match="does not name its architecture: pass arch"):
        load_classifier(tmp_path / "resnet20.th", CIFAR10)


def broken(tmp_path, change):
    state = weights(resnet110_shapes())
    change(state)
    return published(state, "cifar_resnet110", tmp_path / "checkpoint.pth.tar")


def test_a_missing_key_is_named(tmp_path):
    path = broken(tmp_path, lambda state: state.pop("1.layer2.3.conv1.weight"))
    with pytest.raises(ValueError, match=r"1 missing keys: layer2.3.conv1.weight$"):
        load_classifier(path, CIFAR10)


def test_an_unexpected_key_is_named(tmp_path):
    path = broken(tmp_path, lambda state: state.update({"1.head.weight": torch.zeros(3)}))
    with pytest.raises(ValueError, match=r"1 unexpected keys: head.weight$"):
        load_classifier(path, CIFAR10)


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path):
    path = broken(tmp_path, lambda state: state.update({"1.fc.bias": torch.zeros(100)}))
    with pytest.raises(ValueError, match=r"1 wrong shapes: fc.bias is \(100,\), the network has \(10,\)$"):
        load_classifier(path, CIFAR10)


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_the_shortcuts_of_a_cifar_resnet_are_those_of_its_file(tmp_path, depth, shortcut):
    """Option A is akamaster's, option B (1x1 convolutions) that of Cohen et al.'s cifar_resnet20 and its siblings."""
    state = CifarResNet(depth, shortcut).state_dict()
    path = published(
        {f"1.{key}": value for key, value in state.items()}, f"cifar_resnet{depth}", tmp_path / "c.pth.tar"
    )
    assert_holds(load_classifier(path, CIFAR10, normalization="standard")[1], state)


def test_smoothadvs_imagenet_at_32_pixels_loads_with_a_thousand_classes(tmp_path):
    data = replace(CIFAR10, name="folder", num_classes=1000, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    state = CifarResNet(110, "B", 1000).state_dict()
    path = published(
        {f"1.{key}": value for key, value in state.items()}, "imagenet32_resnet110", tmp_path / "c.pth.tar"
    )
    for arch in (None, "imagenet32_resnet110", "cifar_resnet110"):
        classifier = load_classifier(path, data, arch=arch)
        assert_holds(classifier[1], state)
        torch.testing.assert_close(classifier[0].std.flatten(), torch.tensor(CIFAR10_STD))  # its README


@pytest.mark.parametrize("beside", [{"recipe": {"arch": "cifar_resnet20"}}, {"arch": "cifar_resnet20"}])
def test_our_own_safetensors_load_with_the_architecture_of_the_json_beside_them(tmp_path, beside):
    state = build_classifier("cifar_resnet20", CIFAR10).state_dict()
    save_file(state, tmp_path / "0123456789ab.safetensors")
    (tmp_path / "0123456789ab.json").write_text(json.dumps(beside))
    with warnings.catch_warnings(action="error"):  # no doubt about the first layer either
        assert_holds(load_classifier(tmp_path / "0123456789ab.safetensors", CIFAR10), state)


@pytest.mark.parametrize("beside", ["", "{", "[1]", "{}", '{"recipe": 3}', '{"recipe": {"arch": 3}}', '"text"'])
def test_a_json_of_somebody_else_beside_the_weights_tells_nothing(tmp_path, beside):
    save_file({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text(beside)
    checkpoint = read_checkpoint(tmp_path / "model.safetensors")
    assert checkpoint.arch is None and not checkpoint.ours


def test_what_the_training_loop_writes_loads_without_naming_its_architecture(tmp_path):
    data = load_dataset("digits")
    few = TensorDataset(*data.train[:64])
    recipe = Recipe(Gaussian(0.25), "digits_cnn", epochs=1, batch_size=32)
    trained = train(recipe, lambda: build_classifier("digits_cnn", data), few, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    assert_holds(load_classifier(path, data), trained.state_dict())


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_called_so(tmp_path, legacy, kept):
    state = {"1.fc.weight": torch.zeros(10, 640)}
    path = published(state, "cifar_resnet110", tmp_path / "checkpoint.pth.tar", legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"is truncated or damaged \(\d+ bytes\)"):
        read_checkpoint(path)


@pytest.mark.parametrize("kept", [4, 1000])
def test_truncated_safetensors_are_called_so(tmp_path, kept):
    path = tmp_path / "ours.safetensors"
    save_file({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="is truncated or no safetensors file"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>Too many requests", b"hello", bytes(range(256)) * 9])
def test_a_file_that_is_no_checkpoint_is_called_so(tmp_path, content):
    (tmp_path / "checkpoint.pth.tar").write_bytes(content)
    with pytest.raises(ValueError, match="is not a PyTorch checkpoint"):
        read_checkpoint(tmp_path / "checkpoint.pth.tar")


@pytest.mark.parametrize("content", [{"epoch": 3, "loss": 0.5}, [1, 2], {}])
def test_a_file_without_weights_says_what_it_holds(tmp_path, content):
    torch.save(content, tmp_path / "log.pth")
    with pytest.raises(ValueError, match=r"holds no state_dict .* but (the keys|list)"):
        read_checkpoint(tmp_path / "log.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at path=.*absent.pth"):
        load_classifier(tmp_path / "absent.pth", CIFAR10)


class Payload:
    """An object whose unpickling would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("legacy", [True, False])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path, legacy):
    path = tmp_path / "checkpoint.pth.tar"
    content = {"state_dict": {"a": torch.zeros(3)}, "extra": Payload(tmp_path / "ran")}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"would run code \(posix.mkdir\)"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def jpeg_test_images():
    """Every 20th test image of the JPEG copy of CIFAR-10, read from its archive: 50 a class."""
    archive = SHARED / "cifar10_jpeg.tar.xz"
    if not archive.exists():
        pytest.skip(f"no JPEG copy of CIFAR-10 at {archive}")
    images, labels = [], []
    with tarfile.open(archive, "r|xz") as tar:  # a stream: test images come first, the rest stays packed
        for member in tar:
            split, *name = member.name.split("/")
            if split == "test" and member.isfile() and int(name[1][:4]) % 20 == 0:
                pixels = Image.open(io.BytesIO(tar.extractfile(member).read()))
                images.append(np.asarray(pixels, dtype=np.float32).transpose(2, 0, 1) / 255)
                labels.append(CIFAR10_CLASSES.index(name[0]))
            if len(images) == 500:
                return torch.from_numpy(np.stack(images)), torch.tensor(labels)
    raise AssertionError(f"{archive} holds {len(images)} of the 500 images")


# On all 10,000 images of this copy the two have 81.0 % and 83.2 % (ResNet-20: 91.7 % on the originals). The
# 500 here have a standard error of 1.8 points; a misread file has some 10 %.
@pytest.mark.parametrize("depth, accuracy_on_all", [(20, 0.810), (56, 0.832)])
def test_akamasters_resnets_classify_the_jpeg_copy_of_cifar10(jpeg_test_images, depth, accuracy_on_all):
    images, labels = jpeg_test_images
    (path,) = (SHARED / "resnet_cifar10").glob(f"resnet{depth}-*.th")
    classifier = load_classifier(path, CIFAR10, arch=f"cifar_resnet{depth}")
    with torch.inference_mode():
        accuracy = (classifier(images).argmax(1) == labels).float().mean()
    assert accuracy.item() == pytest.approx(accuracy_on_all, abs=0.05)
