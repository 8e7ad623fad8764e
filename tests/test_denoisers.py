"""Denoisers: the layers of the published networks, under their published names, and D in front of f."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib.datasets import Data
from lib.models import DENOISERS, Denoised, build_classifier, build_denoiser, load_classifier, load_denoiser
from lib.models.denoisers import DnCNN, MemNet

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def dncnn_shapes(channels, depth, width):
    """Name -> shape of every weight in a published DnCNN file, spelled out."""
    shapes = {"dncnn.0.weight": (width, channels, 3, 3), "dncnn.0.bias": (width,)}
    for i in range(2, 2 + 3 * (depth - 2), 3):
        shapes[f"dncnn.{i}.weight"] = (width, width, 3, 3)
        shapes |= {f"dncnn.{i + 1}.{name}": () if name == NORM[-1] else (width,) for name in NORM}
    return shapes | {f"dncnn.{2 + 3 * (depth - 2)}.weight": (channels, width, 3, 3)}


def unit_shapes(name, inputs, outputs, kernel=3):
    shapes = {f"{name}.bn.{part}": () if part == NORM[-1] else (inputs,) for part in NORM}
    return shapes | {f"{name}.conv.weight": (outputs, inputs, kernel, kernel)}


def memnet_shapes(channels, width, memory_blocks, residual_blocks):
    """Name -> shape of every weight in a published MemNet file, spelled out."""
    shapes = unit_shapes("feature_extractor", channels, width) | unit_shapes("reconstructor", width, channels)
    for k in range(memory_blocks):
        for j in range(residual_blocks):
            for unit in ("relu_conv1", "relu_conv2"):
                shapes |= unit_shapes(f"dense_memory.{k}.recursive_unit.{j}.{unit}", width, width)
        gate = (residual_blocks + k + 1) * width
        shapes |= unit_shapes(f"dense_memory.{k}.gate_unit", gate, width, kernel=1)
    return shapes


def shapes_of(module):
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


DNCNN_SIZES = [("cifar_dncnn", (3, 17, 64)), ("cifar_dncnn_wide", (3, 17, 128)), ("digits_dncnn", (1, 6, 32))]


@pytest.mark.parametrize("arch, size", DNCNN_SIZES)
def test_dncnn_has_the_published_names_and_shapes(arch, size):
    assert shapes_of(build_denoiser(arch)) == dncnn_shapes(*size)


@pytest.mark.parametrize("arch, size", [("memnet", (3, 64, 3, 6)), ("digits_memnet", (1, 16, 2, 2))])
def test_memnet_has_the_published_names_and_shapes(arch, size):
    assert shapes_of(build_denoiser(arch)) == memnet_shapes(*size)


def test_the_last_layer_of_the_published_dncnn_is_number_47():
    assert list(build_denoiser("cifar_dncnn").state_dict())[-1] == "dncnn.47.weight"


def test_an_untrained_dncnn_returns_its_input():
    images = 2 * torch.randn(2, 3, 8, 8)
    assert torch.equal(DnCNN(depth=4, width=8).train()(images), images)


def test_dncnn_starts_with_orthogonal_filters():
    first = DnCNN(depth=4, width=8).dncnn[0].weight.detach().flatten(1)  # (8, 27)
    torch.testing.assert_close(first @ first.T, torch.eye(8), atol=1e-5, rtol=0)


def test_dncnn_subtracts_what_its_layers_say():
    network = DnCNN(channels=1, depth=3, width=4).eval()
    nn.init.normal_(network.dncnn[-1].weight)
    images, w = torch.rand(2, 1, 8, 8), network.state_dict()
    hidden = F.relu(F.conv2d(images, w["dncnn.0.weight"], w["dncnn.0.bias"], padding=1))
    hidden = F.relu(F.conv2d(hidden, w["dncnn.2.weight"], padding=1) / (1 + 1e-4) ** 0.5)  # a fresh BatchNorm
    expected = images - F.conv2d(hidden, w["dncnn.5.weight"], padding=1)
    torch.testing.assert_close(network(images), expected)


def test_the_published_momentum_keeps_5_percent_of_the_running_mean():
    norm = DnCNN(channels=1, depth=3, width=4).train().dncnn[3]
    norm.running_mean.fill_(2.0)
    batch = torch.rand(4, 4, 5, 5)
    norm(batch)
    torch.testing.assert_close(norm.running_mean, 0.05 * 2 + 0.95 * batch.mean(dim=(0, 2, 3)))


def test_memnet_is_its_recursion_and_gates_written_out():
    network = MemNet(channels=1, width=4, memory_blocks=2, residual_blocks=2).eval()
    images, w = torch.rand(2, 1, 8, 8), network.state_dict()

    def unit(x, name):
        weight = w[f"{name}.conv.weight"]
        return F.conv2d(F.relu(x / (1 + 1e-5) ** 0.5), weight, padding=weight.shape[-1] // 2)

    x = unit(images, "feature_extractor")
    long_term = [x]
    for k in range(2):
        short_term = []
        for j in range(2):
            name = f"dense_memory.{k}.recursive_unit.{j}"
            x = x + unit(unit(x, f"{name}.relu_conv1"), f"{name}.relu_conv2")
            short_term.append(x)
        x = unit(torch.cat(short_term + long_term, dim=1), f"dense_memory.{k}.gate_unit")
        long_term.append(x)
    torch.testing.assert_close(network(images), images + unit(x, "reconstructor"))


@pytest.mark.parametrize("arch", [name for name in DENOISERS if not name.startswith("imagenet")])
def test_a_denoiser_keeps_the_shape_of_its_images_and_does_not_change_them(arch):
    channels = 1 if arch.startswith("digits") else 3
    images = torch.rand(2, channels, 8, 8)
    copy = images.clone()
    assert build_denoiser(arch).eval()(images).shape == images.shape
    assert torch.equal(images, copy)


def test_a_denoiser_of_one_layer_is_refused():
    with pytest.raises(ValueError, match="at least 3, got depth=2"):
        DnCNN(depth=2)


def test_an_unknown_denoiser_is_refused():
    with pytest.raises(ValueError, match=r"'cifar_dncnn'.*got arch='orig_dncnn'"):
        build_denoiser("orig_dncnn")


@pytest.mark.parametrize("arch, prefix", [("cifar_dncnn", ""), ("imagenet_dncnn", "module."), ("memnet", "")])
def test_a_published_denoiser_file_loads_without_naming_its_architecture(tmp_path, arch, prefix):
    written = build_denoiser(arch)
    for value in written.state_dict().values():
        value.copy_(torch.rand(value.shape))
    state = {prefix + key: value for key, value in written.state_dict().items()}
    optimizer = torch.optim.Adam(written.parameters()).state_dict()
    content = {"epoch": 90, "arch": arch, "state_dict": state, "optimizer": optimizer}
    torch.save(content, tmp_path / "best.pth.tar")
    loaded = load_denoiser(tmp_path / "best.pth.tar")
    assert not loaded.training
    assert all(torch.equal(value, written.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_a_loaded_denoiser_can_be_trained_further(tmp_path):
    torch.save(build_denoiser("digits_dncnn").state_dict(), tmp_path / "mse.pth")
    assert all(p.requires_grad for p in load_denoiser(tmp_path / "mse.pth", arch="digits_dncnn").parameters())


def test_a_wide_denoiser_does_not_fit_the_narrow_one(tmp_path):
    torch.save(build_denoiser("cifar_dncnn_wide").state_dict(), tmp_path / "wide.pth")
    with pytest.raises(ValueError, match=r"dncnn.0.weight is \(128, 3, 3, 3\), .* has \(64, 3, 3, 3\)"):
        load_denoiser(tmp_path / "wide.pth", arch="cifar_dncnn")


@pytest.mark.parametrize("arch", ["cifar_dncnn", "cifar_dncnn_wide", "memnet", "digits_dncnn", "digits_memnet"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_a_bare_file_is_the_denoiser_whose_names_and_shapes_it_has(tmp_path, arch, prefix):
    state = build_denoiser(arch).state_dict()
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "bare.pth")
    loaded = load_denoiser(tmp_path / "bare.pth").state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)


def test_a_bare_file_of_no_known_denoiser_asks_for_its_architecture(tmp_path):
    torch.save(DnCNN(depth=5, width=8).state_dict(), tmp_path / "bare.pth")
    with pytest.raises(ValueError, match="does not name its architecture: pass arch, for example arch='cifar_dncnn'"):
        load_denoiser(tmp_path / "bare.pth")


def test_classifiers_and_denoisers_in_each_others_place_are_told_apart(tmp_path):
    torch.save({"arch": "cifar_dncnn", "state_dict": DnCNN().state_dict()}, tmp_path / "d.pth")
    torch.save({"arch": "cifar_wrn", "state_dict": {"1.fc.bias": torch.zeros(10)}}, tmp_path / "c.pth")
    data = Data("cifar10", None, None, 10, tuple("0123456789"), (3, 32, 32), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ValueError, match="holds a denoiser, 'cifar_dncnn': use load_denoiser"):
        load_classifier(tmp_path / "d.pth", data)
    with pytest.raises(ValueError, match="holds a classifier, 'cifar_wrn': use load_classifier"):
        load_denoiser(tmp_path / "c.pth")


def test_the_averaged_weights_of_a_denoiser_can_be_asked_for(tmp_path):
    raw, averaged = (DnCNN(channels=1, depth=6, width=32).state_dict() for _ in range(2))
    averaged["dncnn.0.bias"] = torch.ones(32)
    torch.save({"arch": "digits_dncnn", "state_dict": raw, "state_dict_ema": averaged}, tmp_path / "d.pth")
    loaded = load_denoiser(tmp_path / "d.pth", entry="state_dict_ema")
    assert torch.equal(loaded.state_dict()["dncnn.0.bias"], torch.ones(32))


class Oracle(nn.Module):
    """A denoiser that knows the clean images."""

    def __init__(self, clean):
        super().__init__()
        self.clean = clean

    def forward(self, images):
        return self.clean.expand_as(images)


def test_a_perfect_denoiser_gives_exactly_the_classifiers_logits_on_clean_images():
    data = Data("digits", None, None, 10, tuple("0123456789"), (1, 8, 8), (0.3,), (0.4,))
    classifier = build_classifier("digits_cnn", data).eval()
    clean = torch.rand(5, 1, 8, 8)
    noisy = clean + torch.randn(5, 1, 8, 8)
    assert torch.equal(Denoised(Oracle(clean), classifier)(noisy), classifier(clean))


def test_the_denoisers_output_is_not_clamped():
    outside = torch.tensor([-0.5, 1.5]).view(2, 1, 1, 1)
    assert torch.equal(Denoised(nn.Identity(), nn.Identity())(outside), outside)
