"""Classifiers: one contract (images in [0, 1] -> logits), published names, bases from other libraries."""

import itertools

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

from lib.datasets import CIFAR10_CLASSES, CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD, Data
from lib.models import CLASSIFIERS, Normalize, build_classifier, load_classifier
from lib.models.classifiers import CifarResNet, DigitsCNN, PaddingShortcut

DIGITS = Data("digits", None, None, 10, tuple("0123456789"), (1, 8, 8), (0.3,), (0.4,))
CIFAR10 = Data("cifar10", None, None, 10, CIFAR10_CLASSES, (3, 32, 32), CIFAR10_MEAN, CIFAR10_STD)
WNIDS = ("n01440764", "n02102040", "n03888257")  # tench, springer, parachute: ImageNet's 0, 217 and 701
IMAGENETTE = Data("folder", None, None, 3, WNIDS, (3, 48, 48), IMAGENET_MEAN, IMAGENET_STD)
TINY = "test_resnet"  # timm's network for tests: 0.5 million weights, 160 pixels


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_normalize_subtracts_the_mean_and_divides_by_the_std_of_each_channel():
    images = np.random.default_rng(0).random((2, 3, 4, 4), dtype=np.float32)
    expected = (images - np.reshape(CIFAR10_MEAN, (3, 1, 1))) / np.reshape(CIFAR10_STD, (3, 1, 1))
    result = Normalize(CIFAR10_MEAN, CIFAR10_STD)(torch.from_numpy(images))
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_normalize_has_no_entry_in_the_state_dict_but_moves_with_the_module():
    layer = Normalize(CIFAR10_MEAN, CIFAR10_STD).to("meta")
    assert (list(layer.state_dict()), layer.mean.device.type) == ([], "meta")


def test_a_std_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"std > 0, got mean=\(0.5,\), std=\(0.0,\)"):
        Normalize((0.5,), (0.0,))


@pytest.mark.parametrize("arch", CLASSIFIERS[1, 8, 8])
def test_every_digits_classifier_gives_ten_logits_an_image(arch):
    assert build_classifier(arch, DIGITS).eval()(torch.rand(3, 1, 8, 8)).shape == (3, 10)


def test_the_digits_surrogates_are_three_designs_and_none_is_the_target():
    sizes = {arch: parameters(build_classifier(arch, DIGITS)) for arch in CLASSIFIERS[1, 8, 8]}
    assert len(set(sizes.values())) == 4


@pytest.mark.parametrize("depth, millions", [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_resnets_have_the_published_number_of_parameters(depth, millions):
    tolerance = 0.04 if depth == 110 else 0.005  # half of the last digit that was printed
    assert parameters(CifarResNet(depth, "A")) / 1e6 == pytest.approx(millions, abs=tolerance)


def test_option_a_pads_every_second_pixel_with_zero_channels_on_both_sides():
    x = torch.rand(2, 4, 6, 6)
    expected = np.zeros((2, 8, 3, 3), dtype=np.float32)
    for n, c, i, j in itertools.product(range(2), range(4), range(3), range(3)):
        expected[n, c + 2, i, j] = x[n, c, 2 * i, 2 * j]
    assert np.array_equal(PaddingShortcut()(x).numpy(), expected)


def test_option_b_adds_a_projection_and_its_batchnorm_to_two_stages_and_nothing_else():
    extra = set(CifarResNet(20, "B").state_dict()) - set(CifarResNet(20, "A").state_dict())
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    stages = ("layer2.0.downsample", "layer3.0.downsample")
    assert extra == {f"{s}.{k}" for s in stages for k in ("0.weight", *(f"1.{name}" for name in norm))}


def test_a_stride_halves_the_image_at_the_start_of_the_second_and_third_stage():
    network, sizes = CifarResNet(8), []
    for stage in (network.layer1, network.layer2, network.layer3):
        stage.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    network(torch.rand(1, 3, 32, 32))
    assert sizes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


@pytest.mark.parametrize("normalization", ["imagenet", "cifar10"])
def test_a_layer_for_colours_is_refused_before_grey_images(normalization):
    with pytest.raises(ValueError, match=f"normalization='{normalization}' is for 3 channels, 'digits' has 1"):
        build_classifier("digits_cnn", DIGITS, normalization=normalization)


def test_no_normalisation_gives_the_network_the_pixels_as_they_are():
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(build_classifier("cifar_resnet20", CIFAR10, normalization="none")[0](images), images)


@pytest.mark.parametrize("depth, shortcut", [(21, "B"), (2, "B"), (20, "C")])
def test_impossible_resnets_are_refused(depth, shortcut):
    with pytest.raises(ValueError, match=f"got depth={depth}|got shortcut='{shortcut}'"):
        CifarResNet(depth, shortcut)


def test_the_digits_network_keeps_its_activations_small():
    sizes = []
    network = DigitsCNN()
    for layer in network.features:
        layer.register_forward_hook(lambda _, __, out: sizes.append(out[0].numel() * out.element_size()))
    network(torch.rand(1, 1, 8, 8))
    assert max(sizes) <= 4096  # bytes an image: a batch of 1000 fits the cache


def test_an_unknown_architecture_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"'cifar_resnet110'.*got arch='resnet9000'"):
        build_classifier("resnet9000", CIFAR10)


def test_an_architecture_for_other_images_is_refused():
    with pytest.raises(ValueError, match=r"takes images \(1, 8, 8\), .* 'cifar10' are \(3, 32, 32\)"):
        build_classifier("digits_cnn", CIFAR10)


def test_an_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match=r"'none', 'standard'\], got normalization='centre'"):
        build_classifier("digits_cnn", DIGITS, normalization="centre")


def test_building_does_not_depend_on_more_than_the_global_generator():
    networks = []
    for _ in range(2):
        torch.manual_seed(5)
        networks.append(build_classifier("digits_cnn", DIGITS).state_dict())
    assert all(torch.equal(networks[0][key], networks[1][key]) for key in networks[0])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A timm network with 1000 classes, and a file of its weights."""
    network = timm.create_model(TINY).eval()
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(network.state_dict(), path)
    return network, path


def test_a_timm_network_gets_its_own_size_and_normalisation(tiny):
    network, path = tiny
    images = torch.rand(2, 3, 48, 48)
    config = timm.data.resolve_model_data_config(network)
    upscaled = F.interpolate(images, config["input_size"][1:], mode="bicubic", antialias=True)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = network((upscaled - mean) / std)[:, [0, 217, 701]]
    result = load_classifier(f"timm:{TINY}", IMAGENETTE, weights=path, label_map=[0, 217, 701])(images)
    torch.testing.assert_close(result, expected)


def test_wnids_find_their_place_among_imagenets_classes(tiny):
    classifier = load_classifier(f"timm:{TINY}", IMAGENETTE, weights=tiny[1], label_map="wnid")
    assert classifier.label_map.tolist() == [0, 217, 701]


def test_wnid_needs_wnids(tiny):
    with pytest.raises(ValueError, match=r"needs ImageNet ids .* got \['airplane'"):
        load_classifier(f"timm:{TINY}", CIFAR10, weights=tiny[1], label_map="wnid")


def test_weights_with_other_classes_than_the_data_do_not_fit(tiny):
    with pytest.raises(ValueError, match=r"wrong shapes: .*\(1000, .*the network has \(3, "):
        load_classifier(f"timm:{TINY}", IMAGENETTE, weights=tiny[1])


def test_published_weights_with_other_classes_ask_for_a_label_map(monkeypatch, tiny):
    monkeypatch.setattr("timm.create_model", lambda name, pretrained: tiny[0] if pretrained else None)
    with pytest.raises(ValueError, match="has 1000 classes, folder has 3: pass label_map"):
        load_classifier(f"timm:{TINY}", IMAGENETTE)


@pytest.mark.parametrize("label_map", [[0, 1, 1000], [0, 1], [0, 1, 1]])
def test_a_label_map_needs_one_existing_class_for_each_of_the_data(tiny, label_map):
    with pytest.raises(ValueError, match=r"label_map must"):
        load_classifier(f"timm:{TINY}", IMAGENETTE, weights=tiny[1], label_map=label_map)


@pytest.mark.parametrize("form", [tuple, np.array, torch.tensor, lambda m: np.array(m, dtype=np.uint16)])
def test_a_label_map_may_be_any_flat_sequence_of_whole_numbers(tiny, form):
    loaded = load_classifier(f"timm:{TINY}", IMAGENETTE, weights=tiny[1], label_map=form([0, 217, 701]))
    assert loaded.label_map.tolist() == [0, 217, 701]


REFUSED = {
    "a dict": {0: 404, 1: 817, 2: 13},
    "a dict the other way round": {404: 0, 817: 1, 13: 2},
    "a set": {404, 817, 13},
    "a view of a dict": {404: 0, 817: 1, 13: 2}.keys(),
    "floats": [0.0, 217.0, 701.0],
    "an array of floats": np.array([0.0, 217.0, 701.0]),
    "truth values": [True, False, True],
    "texts": ["0", "217", "701"],
    "another word": "wnids",
    "bytes": b"abc",
    "nested lists": [[0], [217], [701]],
    "unequal lists": [[0, 1], [217], [701]],
    "a matrix": np.zeros((3, 1), dtype=int),
    "a tensor of floats": torch.tensor([0.0, 217.0, 701.0]),
    "one number": 3,
    "a generator": (i for i in (0, 217, 701)),
    "repeated indices": np.array([0, 217, 217]),
}


@pytest.mark.parametrize("label_map", REFUSED.values(), ids=REFUSED)
def test_any_other_label_map_is_refused_with_the_right_form(tiny, label_map):
    with pytest.raises(ValueError, match="label_map must be 'wnid' or a list of 3 different whole numbers, entry j"):
        load_classifier(f"timm:{TINY}", IMAGENETTE, weights=tiny[1], label_map=label_map)


def offline(*_, **__):
    raise OSError("Temporary failure in name resolution")


@pytest.mark.parametrize("name, downloads", [(f"timm:{TINY}.r160_in1k", "timm.create_model"),
                                             ("torchvision:resnet18", "torchvision.models.get_model")])  # fmt: skip
def test_without_a_network_the_model_is_named_and_a_file_asked_for(name, downloads, monkeypatch):
    monkeypatch.setattr(downloads, offline)
    with pytest.raises(ConnectionError, match=rf"weights of {name} .*name resolution.*pass weights=FILE"):
        load_classifier(name, IMAGENETTE, label_map="wnid")


def test_published_weights_that_are_not_finite_are_refused(monkeypatch, tiny):
    broken = timm.create_model(TINY)
    next(broken.parameters()).data.fill_(float("inf"))
    monkeypatch.setattr("timm.create_model", lambda name, pretrained: broken)
    with pytest.raises(ValueError, match=f"timm:{TINY} holds NaN or infinite weights in 1 of"):
        load_classifier(f"timm:{TINY}", IMAGENETTE, label_map="wnid")


def test_a_checkpoint_of_timms_own_training_loads_though_it_names_its_architecture(tiny, tmp_path):
    torch.save({"arch": TINY, "state_dict": tiny[0].state_dict()}, tmp_path / "model_best.pth.tar")
    loaded = load_classifier(f"timm:{TINY}", IMAGENETTE, weights=tmp_path / "model_best.pth.tar", label_map="wnid")
    assert torch.equal(next(loaded.network.parameters()), next(tiny[0].parameters()))


def test_a_network_for_colour_images_refuses_grey_ones():
    with pytest.raises(ValueError, match="takes 3 channels, digits has 1"):
        build_classifier(f"timm:{TINY}", DIGITS)


def test_a_torchvision_network_can_be_the_base(tmp_path):
    name = "torchvision:shufflenet_v2_x0_5"
    built = build_classifier(name, IMAGENETTE).eval()
    torch.save(built.network.state_dict(), tmp_path / "weights.pth")
    images = torch.rand(2, 3, 48, 48)
    loaded = load_classifier(name, IMAGENETTE, weights=tmp_path / "weights.pth")
    assert torch.equal(loaded(images), built(images))


@pytest.mark.parametrize("name", ["timm:no_such_net", "torchvision:no_such_net"])
def test_a_network_that_a_library_does_not_have_is_refused(name):
    with pytest.raises(ValueError, match=r"has no .*no_such_net"):
        build_classifier(name, CIFAR10)


def test_torchvisions_weights_are_chosen_by_their_names():
    with pytest.raises(ValueError, match=r"\['IMAGENET1K_V1', 'IMAGENET1K_V2'\], got weights='V3'"):
        load_classifier("torchvision:resnet50", IMAGENETTE, weights="V3")


def test_arguments_that_would_be_ignored_are_refused(tiny):
    with pytest.raises(ValueError, match="neither arch=None nor normalization='center'"):
        load_classifier(f"timm:{TINY}", IMAGENETTE, normalization="center")
    with pytest.raises(ValueError, match="are for 'timm:' and 'torchvision:' names"):
        load_classifier(tiny[1], IMAGENETTE, label_map="wnid")
    with pytest.raises(ValueError, match="brings its own normalisation, got normalization='center'"):
        build_classifier(f"timm:{TINY}", IMAGENETTE, normalization="center")


def test_a_loaded_classifier_is_frozen_and_in_eval_mode(tiny):
    classifier = load_classifier(f"timm:{TINY}", IMAGENETTE, weights=tiny[1], label_map="wnid")
    assert not classifier.training
    assert not any(parameter.requires_grad for parameter in classifier.parameters())
