"""OpenAI's published UNets become diffusers UNets that compute the same, and any model loads or says why."""

import hashlib
import json
import re

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from lib.models.diffusion import load_diffusion
from lib.models.openai_unet import PUBLISHED, OpenAIUNetConfig, convert, load_openai_unet
from lib.models.small_unet import digits_unet
from tests.openai_reference import ReferenceUNet

CIFAR, IMAGENET = (PUBLISHED[name].config for name in ("cifar10_uncond_50M_500K.pt", "256x256_diffusion_uncond.pt"))

# Two small models of each style, with attention at some levels and with a level that keeps its width.
IMPROVED = OpenAIUNetConfig(
    image_size=16,
    channels=32,
    channel_mult=(1, 2, 2),
    num_res_blocks=2,
    attention_resolutions=(8, 4),
    head_channels=16,
    resblock_updown=False,
    diffusion_steps=4000,
    beta_schedule="squaredcos_cap_v2",
    rescale_timesteps=True,
    dropout=0.3,
)
GUIDED = OpenAIUNetConfig(
    image_size=16,
    channels=32,
    channel_mult=(1, 1, 2),
    num_res_blocks=1,
    attention_resolutions=(8,),
    head_channels=16,
    resblock_updown=True,
    diffusion_steps=1000,
    beta_schedule="linear",
    rescale_timesteps=False,
)


def improved(config: OpenAIUNetConfig) -> ReferenceUNet:
    """In improved-diffusion the number of heads is fixed (4) and timesteps are told in thousandths."""
    shape = {"image_size": config.image_size, "channels": config.channels, "mult": config.channel_mult}
    return ReferenceUNet(
        **shape,
        blocks=config.num_res_blocks,
        attention=config.attention_resolutions,
        updown=False,
        heads=4,
        rescale=1000 / 4000,
    )


def guided(config: OpenAIUNetConfig, head_channels: int) -> ReferenceUNet:
    """In guided-diffusion the channels of a head are fixed and timesteps are told as they are."""
    shape = {"image_size": config.image_size, "channels": config.channels, "mult": config.channel_mult}
    return ReferenceUNet(
        **shape,
        blocks=config.num_res_blocks,
        attention=config.attention_resolutions,
        updown=True,
        head_channels=head_channels,
    )


@pytest.fixture(params=["improved", "guided"])
def pair(request, tmp_path):
    """(reference, converted UNet, config), the UNet loaded from a file with the weights of the reference."""
    torch.manual_seed(0)
    config = {"improved": IMPROVED, "guided": GUIDED}[request.param]
    reference = improved(config) if config is IMPROVED else guided(config, 16)
    with torch.no_grad():  # PyTorch starts norms at 1 and 0, which would hide an exchange of the two
        for parameter in reference.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    torch.save(reference.state_dict(), tmp_path / "model.pt")
    unet, _ = load_openai_unet(tmp_path / "model.pt", config)
    return reference, unet, config


def test_the_converted_unet_computes_the_published_forward_pass(pair):
    reference, unet, config = pair
    x = torch.randn(3, 3, 16, 16)
    t = torch.tensor([0, 57, config.diffusion_steps - 1])
    with torch.no_grad():
        torch.testing.assert_close(unet(x, t).sample, reference(x, t)[:, :3], atol=1e-5, rtol=1e-5)


def test_an_image_smaller_than_the_training_size_gives_the_published_answer(pair):
    reference, unet, _ = pair  # as 224 pixels do on the 256-pixel network
    x, t = torch.randn(2, 3, 12, 20), torch.tensor([31, 32])
    with torch.no_grad():
        torch.testing.assert_close(unet(x, t).sample, reference(x, t)[:, :3], atol=1e-5, rtol=1e-5)


def test_a_fractional_timestep_gives_the_published_answer(pair):
    reference, unet, _ = pair
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([250.25, 12.5])
    with torch.no_grad():
        torch.testing.assert_close(unet(x, t).sample, reference(x, t)[:, :3], atol=1e-5, rtol=1e-5)


def test_every_published_weight_but_the_learned_variance_arrives_in_the_unet(pair):
    reference, unet, _ = pair
    variance = sum(parameter[3:].numel() for parameter in reference.out["2"].parameters())
    assert count(unet) == count(reference) - variance


@pytest.mark.parametrize(("config", "heads"), [(CIFAR, 4), (IMAGENET, 0)], ids=["cifar", "imagenet"])
def test_the_full_published_layout_converts_name_by_name_and_shape_by_shape(config, heads):
    with torch.device("meta"):  # shapes without memory: the ImageNet model has 2.2 GB
        reference = improved(config) if heads else guided(config, 64)
        unet = config.build()
        unet.load_state_dict(convert(reference.state_dict(), config), assign=True)
    assert count(unet) == count(reference) - sum(p[3:].numel() for p in reference.out["2"].parameters())


def test_the_imagenet_layout_has_the_parameters_of_the_published_file():
    with torch.device("meta"):
        reference = guided(IMAGENET, 64)
    assert count(reference) == 552_814_086  # 2,211,256,344 bytes; the file has 127 kB more, for the names
    assert PUBLISHED["256x256_diffusion_uncond.pt"].megabytes == 2_211_383_297 // 10**6


def test_four_heads_are_64_channels_each_wherever_the_cifar_model_attends():
    with torch.device("meta"):
        attentions = [layer for layer in CIFAR.build().modules() if type(layer).__name__ == "Attention"]
    assert len(attentions) == 3 + 3 + 1 + 4 + 4
    assert {layer.heads for layer in attentions} == {4}


def test_the_cifar_unet_is_told_a_quarter_of_its_timestep():
    with torch.device("meta"):
        assert CIFAR.build().time_proj.scale == 0.25
        assert IMAGENET.build().time_proj.scale == 1


def test_a_state_dict_with_an_unknown_name_is_refused(pair):
    reference, _, config = pair
    state = reference.state_dict() | {"label_emb.weight": torch.zeros(1000, 128)}
    with pytest.raises(ValueError, match="label_emb"):
        convert(state, config)


def test_a_file_that_lacks_a_layer_is_refused(pair, tmp_path):
    reference, _, config = pair
    state = {key: value for key, value in reference.state_dict().items() if "middle_block.1.norm" not in key}
    torch.save(state, tmp_path / "short.pt")
    with pytest.raises(ValueError, match=r"mid_block\.attentions\.0\.group_norm"):
        load_openai_unet(tmp_path / "short.pt", config)


def test_a_model_of_the_other_style_is_refused(pair):
    reference, _, config = pair
    with pytest.raises(ValueError, match="no place for"):
        convert(reference.state_dict(), GUIDED if config is IMPROVED else IMPROVED)


def test_a_wrong_hash_is_refused_before_the_file_is_opened(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"no checkpoint at all")
    with pytest.raises(ValueError, match=hashlib.sha256(b"no checkpoint at all").hexdigest()):
        load_openai_unet(tmp_path / "model.pt", GUIDED, sha256="0" * 64)


@pytest.mark.parametrize("wrong", [{"channel_mult": (2, 2)}, {"head_channels": 24}])
def test_a_configuration_that_the_unet_cannot_express_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OpenAIUNetConfig(**{**vars(GUIDED), **wrong})


@pytest.fixture
def saved(tmp_path):
    """A small model, saved as a diffusers pipeline."""
    unet = digits_unet()
    DDPMPipeline(unet, DDPMScheduler(beta_schedule="squaredcos_cap_v2")).save_pretrained(tmp_path)
    return unet.eval(), tmp_path


def test_a_diffusers_folder_loads_with_its_weights_and_its_schedule(saved):
    unet, folder = saved
    found, scheduler = load_diffusion(folder)
    images, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 300])
    with torch.no_grad():
        assert torch.equal(found(images, t).sample, unet(images, t).sample)
    assert scheduler.config.beta_schedule == "squaredcos_cap_v2" and not found.training


def test_a_diffusers_folder_with_everything_at_its_top_loads_too(saved, tmp_path):
    unet, _ = saved  # google/ddpm-cifar10-32 is laid out like this
    unet.save_pretrained(tmp_path / "flat")
    DDPMScheduler().save_pretrained(tmp_path / "flat")
    assert isinstance(load_diffusion(tmp_path / "flat")[0], UNet2DModel)


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"])
def test_a_folder_that_lacks_a_file_says_which(saved, name):
    (saved[1] / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_diffusion(saved[1])


def test_weights_that_lack_a_layer_are_refused_and_not_filled_with_noise(saved):
    file = saved[1] / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    del state["conv_out.bias"]
    save_file(state, file)
    with pytest.raises(ValueError, match=r"conv_out\.bias"):
        load_diffusion(saved[1])


@pytest.mark.parametrize("name", ["logging", "UNet2DModel", "NoSuchScheduler", "", None, 3, ["module", "Scheduler"]])
def test_a_folder_whose_scheduler_is_no_scheduler_of_diffusers_is_refused(saved, name):
    file = saved[1] / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": name}))
    with pytest.raises(ValueError, match="names a scheduler that diffusers does not have: " + re.escape(repr(name))):
        load_diffusion(saved[1])


def test_a_folder_whose_weights_are_not_finite_is_refused(saved):
    file = saved[1] / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["conv_out.bias"][0] = float("nan")
    save_file(state, file)
    with pytest.raises(
        ValueError, match=r"NaN or infinite weights in 1 of \d+ tensors, first in conv_out\.bias \(1 of"
    ):
        load_diffusion(saved[1])


@pytest.mark.parametrize("prefix", ["module.", "model._orig_mod."])
def test_openais_layout_loads_under_a_wrappers_prefix(pair, prefix, tmp_path):
    reference, unet, config = pair
    torch.save({prefix + key: value for key, value in reference.state_dict().items()}, tmp_path / "wrapped.pt")
    loaded = load_openai_unet(tmp_path / "wrapped.pt", config)[0].state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in unet.state_dict().items())


def test_whole_numbers_in_place_of_openais_weights_are_refused(pair, tmp_path):
    reference, _, config = pair
    torch.save({key: (9 * value).to(torch.int8) for key, value in reference.state_dict().items()}, tmp_path / "int8.pt")
    with pytest.raises(ValueError, match=r"wrong types: .* is torch\.int8, the network has torch.float32"):
        load_openai_unet(tmp_path / "int8.pt", config)


def test_a_folder_with_a_wrong_hash_is_refused(saved):
    with pytest.raises(ValueError, match="sha256"):
        load_diffusion(saved[1], sha256="0" * 64)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("cifar10_uncond_50M_500K.pt", "210 MB.*openaipublic"),
        ("256x256_diffusion_uncond.pt", "2211 MB.*openaipublic"),
        ("google/ddpm-cifar10-32", "hf download google/ddpm-cifar10-32.*143 MB"),
        ("some/where/256x256_diffusion_uncond.pt", "some/where/256x256.*2211 MB"),
        ("some/where/else", "some/where/else"),
    ],
)
def test_a_missing_model_says_what_to_download_and_how_large_it_is(name, advice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=advice):
        load_diffusion(name, folder=tmp_path)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
