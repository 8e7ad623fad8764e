"""Salman et al.'s surrogates: names, shapes and answers of the networks in their released files.

The table was computed with other networks, written line by line after kuangliu/pytorch-cifar (of its EfficientNet the
version of 2019) and xternalz/WideResNet-pytorch: how many entries a state_dict has, a hash of its names and shapes, and
the first three logits with the weights that `filled` computes.
"""

import hashlib

import pytest
import torch
import torch.nn.functional as F

from lib.datasets import CIFAR10_CLASSES, CIFAR10_MEAN, CIFAR10_STD, Data
from lib.models import build_classifier, load_classifier
from lib.models.surrogates import CIFAR_SURROGATES, wide_resnet

CIFAR10 = Data("cifar10", None, None, 10, CIFAR10_CLASSES, (3, 32, 32), CIFAR10_MEAN, CIFAR10_STD)
AUTHORS = {
    "WRN-28-10": (155, "733853da8aaa", (0.9453, 1.2944, 0.6708)),
    "WRN-40-10": (227, "707dda57da5a", (1.0222, -0.3983, -0.2533)),
    "VGG16": (93, "075a77ab0b95", (-0.5976, -0.6859, -0.8052)),
    "VGG19": (114, "4bc8d350d781", (-0.212, -0.1456, -0.1238)),
    "ResNet18": (122, "15e99edfd6f7", (0.7062, -1.853, 2.7984)),
    "PreActResNet18": (102, "2db34b697cee", (0.0879, -0.0781, 0.0672)),
    "ResNeXt29_2x64d": (188, "807c19c727fe", (1.5706, 0.17, -1.3271)),
    "MobileNet": (164, "1c92f4880fb0", (-20.8632, -18.9432, -12.9954)),
    "MobileNetV2": (344, "6e254c358dc3", (3.6696, -2.3813, -2.9108)),
    "SENet18": (139, "e285b8c65581", (0.0368, -0.0787, -0.0788)),
    "ShuffleNetV2": (338, "c26ef99b3aff", (0.0305, -0.0799, -0.1283)),
    "EfficientNetB0": (372, "016e2ae31810", (0.3632, 0.2265, 0.0162)),
    "GoogLeNet": (450, "2f0ab92da58e", (-0.0701, -0.1469, -0.1623)),
    "DenseNet121": (722, "857d54a6bfa1", (2.0614, 1.0838, -0.4205)),
}


def filled(network):
    """The network with weights that are cosines, scaled so that its answers depend on every layer."""
    for i, (name, value) in enumerate(sorted(network.state_dict().items())):
        waves = torch.cos(torch.arange(value.numel(), dtype=torch.float64) * (1 + i % 7) + i).reshape(value.shape)
        if name.endswith("running_var") or (value.ndim == 1 and "weight" in name):
            value.copy_(1 + 0.5 * waves)
        elif value.ndim == 1:
            value.copy_(0.1 * waves)
        elif value.is_floating_point():
            value.copy_(waves * 1.4 * (2 / value[0].numel()) ** 0.5)
    return network.eval()


def an_image():
    waves = torch.sin(torch.arange(2 * 3 * 32 * 32, dtype=torch.float64) * 0.37)
    return (waves.reshape(2, 3, 32, 32).float() / 2 + 0.5)[:1]


@pytest.mark.parametrize("arch", AUTHORS)
def test_a_surrogate_has_the_names_and_shapes_of_the_authors_files(arch):
    with torch.device("meta"):
        state = CIFAR_SURROGATES[arch](10).state_dict()
    text = "\n".join(f"{name} {tuple(value.shape)}" for name, value in sorted(state.items()))
    assert (len(state), hashlib.sha256(text.encode()).hexdigest()[:12]) == AUTHORS[arch][:2]


@pytest.mark.parametrize("arch", AUTHORS)
def test_a_surrogate_answers_what_the_authors_network_answers(arch):
    with torch.no_grad():  # in float64: in float32 MobileNet's answers differ by 0.004 from one machine to another
        logits = filled(CIFAR_SURROGATES[arch](10)).double()(an_image().double())
    torch.testing.assert_close(logits[0, :3], torch.tensor(AUTHORS[arch][2]).double(), atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("arch", AUTHORS)
def test_every_surrogate_gives_ten_logits_an_image_and_a_gradient_to_its_input(arch):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    surrogate = build_classifier(arch, CIFAR10).requires_grad_(False)
    logits = surrogate(images)  # in training mode: BatchNorm keeps 50 random layers in scale
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert logits.shape == (2, 10)
    assert (images.grad.flatten(1).norm(dim=1) > 0).all()


def test_the_fourteen_surrogates_carry_the_names_of_the_paper():
    assert list(CIFAR_SURROGATES) == list(AUTHORS)


@pytest.mark.parametrize(("stored", "arch"), [("VGG16", "VGG16"), ("ResNet18", "ResNet18"), ("cifar_wrn", "WRN-28-10")])
def test_a_released_surrogate_loads_under_the_name_in_its_file(stored, arch, tmp_path):
    state = {f"1.{name}": value for name, value in CIFAR_SURROGATES[arch](10).state_dict().items()}
    torch.save({"epoch": 90, "arch": stored, "state_dict": state, "optimizer": {}}, tmp_path / "checkpoint.pth.tar")
    loaded = load_classifier(tmp_path / "checkpoint.pth.tar", CIFAR10, normalization="standard").state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("depth, widen, millions", [(28, 10, 36.5), (40, 10, 55.8)])
def test_wide_resnets_have_the_published_number_of_parameters(depth, widen, millions):
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in wide_resnet(depth, widen).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("depth", [4, 27, 29])
def test_an_impossible_wide_resnet_is_refused(depth):
    with pytest.raises(ValueError, match=f"got depth={depth}"):
        wide_resnet(depth, 1)
