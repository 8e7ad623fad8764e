"""OpenAI's two diffusion models, which Carlini et al. 2023 denoise with, as diffusers UNets.

The published files (improved-diffusion for CIFAR-10, guided-diffusion for ImageNet) hold a UNet2DModel under
other names. Four things have no plain counterpart, and are still kept exactly:

- attention stores one matrix whose rows are, head by head, [q; k; v]: split into to_q, to_k and to_v;
- the middle attention has a norm, which diffusers leaves out beside scale-shift norm unless told its groups;
- the CIFAR model is told t * 1000 / 4000: `time_proj.scale` of the module. No configuration stores it, so
  convert the published file again rather than saving the UNet with `save_pretrained`;
- the output has a learned variance in its second half: dropped, the first half is epsilon.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor

from lib.models.checkpoints import read_checkpoint
from lib.models.fitting import misfits, renamed

# Published name of a layer -> its name in diffusers: in a residual block, in an attention block, at the ends.
RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ATTENTION = {"norm": "group_norm", "qkv": "to_", "proj_out": "to_out.0"}
ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


@dataclass(frozen=True)
class OpenAIUNetConfig:
    """The flags of a published model, as far as they shape the network and its schedule.

    Both have scale-shift norm, 32 groups a norm and attention in the middle. `head_channels`: the CIFAR model
    was given 4 heads, the ImageNet model 64 channels a head; that is the same, since every attention of the
    CIFAR model is 256 channels wide. Raises ValueError for what UNet2DModel cannot express.
    """

    image_size: int
    channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    head_channels: int
    resblock_updown: bool  # halve and double the image in residual blocks, not in plain convolutions
    diffusion_steps: int
    beta_schedule: str  # diffusers' name
    rescale_timesteps: bool  # the network is told t * 1000 / diffusion_steps
    dropout: float = 0.0
    in_channels: int = 3

    def __post_init__(self) -> None:
        if self.channel_mult[0] != 1:
            raise ValueError(f"channel_mult must begin with 1 in UNet2DModel, got {self.channel_mult}")
        widths = [w for w, attends in zip(self.widths, self.attends) if attends] + [self.widths[-1]]
        if any(width % self.head_channels for width in widths):
            raise ValueError(f"head_channels must divide {widths}, got {self.head_channels}")

    @property
    def widths(self) -> list[int]:
        """Channels at each level, finest first."""
        return [self.channels * mult for mult in self.channel_mult]

    @property
    def attends(self) -> list[bool]:
        """Which levels have attention after each residual block."""
        sizes = [self.image_size >> level for level in range(len(self.channel_mult))]
        return [size in self.attention_resolutions for size in sizes]

    def build(self) -> UNet2DModel:
        """The UNet with random weights. It takes any size that halves evenly at every level (224 for 256)."""
        down, up = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
        if not self.resblock_updown:
            down, up = "DownBlock2D", "UpBlock2D"
        unet = UNet2DModel(
            sample_size=self.image_size,
            in_channels=self.in_channels,
            out_channels=self.in_channels,
            block_out_channels=tuple(self.widths),
            layers_per_block=self.num_res_blocks,
            down_block_types=tuple("AttnDownBlock2D" if a else down for a in self.attends),
            up_block_types=tuple("AttnUpBlock2D" if a else up for a in reversed(self.attends)),
            downsample_type="resnet" if self.resblock_updown else "conv",
            upsample_type="resnet" if self.resblock_updown else "conv",
            attention_head_dim=self.head_channels,
            attn_norm_num_groups=32,  # without it the middle attention loses its norm
            resnet_time_scale_shift="scale_shift",
            dropout=self.dropout,
        )
        if self.rescale_timesteps:
            unet.time_proj.scale = 1000 / self.diffusion_steps
        return unet

    def scheduler(self) -> DDPMScheduler:
        """The published betas: linear from 1e-4 to 0.02, or cosine clipped at 0.999."""
        return DDPMScheduler(num_train_timesteps=self.diffusion_steps, beta_schedule=self.beta_schedule)


@dataclass(frozen=True)
class Published:
    """A published file: where it is, how large, and what is in it."""

    url: str
    megabytes: int
    config: OpenAIUNetConfig
    sha256: str | None = None


PUBLISHED = {
    "cifar10_uncond_50M_500K.pt": Published(
        url="https://openaipublic.blob.core.windows.net/diffusion/march-2021/cifar10_uncond_50M_500K.pt",
        megabytes=210,
        config=OpenAIUNetConfig(
            image_size=32,
            channels=128,
            channel_mult=(1, 2, 2, 2),
            num_res_blocks=3,
            attention_resolutions=(16, 8),
            head_channels=64,
            resblock_updown=False,
            diffusion_steps=4000,
            beta_schedule="squaredcos_cap_v2",
            rescale_timesteps=True,
            dropout=0.3,
        ),
    ),
    "256x256_diffusion_uncond.pt": Published(
        url="https://openaipublic.blob.core.windows.net/diffusion/jul-2021/256x256_diffusion_uncond.pt",
        megabytes=2211,
        config=OpenAIUNetConfig(
            image_size=256,
            channels=256,
            channel_mult=(1, 1, 2, 2, 4, 4),
            num_res_blocks=2,
            attention_resolutions=(32, 16, 8),
            head_channels=64,
            resblock_updown=True,
            diffusion_steps=1000,
            beta_schedule="linear",
            rescale_timesteps=False,
        ),
        # as listed by Disco Diffusion, which downloads the same file
        sha256="a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
    ),
}


def load_openai_unet(
    path: str | Path, config: OpenAIUNetConfig, sha256: str | None = None
) -> tuple[UNet2DModel, DDPMScheduler]:
    """A file in OpenAI's layout, trained with the flags of `config`: the UNet in eval mode and its schedule.

    Raises FileNotFoundError, or ValueError for a wrong hash, a damaged file or another layout.
    """
    check_hash(Path(path), sha256)
    with torch.device("meta"):  # no second copy of up to 2.2 GB
        unet = config.build()
    published = renamed(read_checkpoint(path).state, {f"{layer}.weight": None for layer in ENDS})
    state, expected = convert(published, config), unet.state_dict()
    problems = misfits(state, expected)
    if problems:
        raise ValueError(f"{path} does not have the layout of {config}: {'; '.join(problems)}")
    unet.load_state_dict(state, assign=True)
    return unet.float().eval(), config.scheduler()


def convert(state: Mapping[str, Tensor], config: OpenAIUNetConfig) -> dict[str, Tensor]:
    """Published names and shapes -> those of UNet2DModel. ValueError for a name that has no counterpart."""
    names = ENDS | dict(_layer_names(config))
    unknown = [key for key in state if key.rpartition(".")[0] not in names]
    if unknown:
        raise ValueError(f"state has {len(unknown)} names that the config has no place for: {unknown[:4]}")
    converted = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        if value.ndim == 3:  # a 1-d convolution of width 1 is a linear layer
            value = value[..., 0]
        if layer.endswith(".qkv"):
            rows = value.unflatten(0, (-1, 3, config.head_channels))  # (heads, 3, channels of a head, ...)
            for i, part in enumerate("qkv"):
                converted[f"{names[layer]}{part}.{kind}"] = rows[:, i].flatten(0, 1)
        else:
            converted[f"{names[layer]}.{kind}"] = value[: config.in_channels] if layer == "out.2" else value
    return converted


def _layer_names(config: OpenAIUNetConfig) -> Iterator[tuple[str, str]]:
    """(published name, diffusers name) of every layer between the ends."""
    levels = range(len(config.channel_mult))
    block = 1
    for level in levels:
        for i in range(config.num_res_blocks):
            yield from _block(f"input_blocks.{block}", f"down_blocks.{level}", i, config.attends[level])
            block += 1
        if level != levels[-1]:
            yield from _resampler(f"input_blocks.{block}.0", f"down_blocks.{level}.downsamplers.0", config)
            block += 1
    yield from _prefixed("middle_block.0", "mid_block.resnets.0", RESNET)
    yield from _prefixed("middle_block.1", "mid_block.attentions.0", ATTENTION)
    yield from _prefixed("middle_block.2", "mid_block.resnets.1", RESNET)
    block = 0
    for up, level in enumerate(reversed(levels)):
        attends = config.attends[level]
        for i in range(config.num_res_blocks + 1):
            yield from _block(f"output_blocks.{block}", f"up_blocks.{up}", i, attends)
            block += 1
        if level:  # the upsampler ends the last block of its level
            published = f"output_blocks.{block - 1}.{1 + attends}"
            yield from _resampler(published, f"up_blocks.{up}.upsamplers.0", config)


def _block(published: str, ours: str, i: int, attends: bool) -> Iterator[tuple[str, str]]:
    yield from _prefixed(f"{published}.0", f"{ours}.resnets.{i}", RESNET)
    if attends:
        yield from _prefixed(f"{published}.1", f"{ours}.attentions.{i}", ATTENTION)


def _resampler(published: str, ours: str, config: OpenAIUNetConfig) -> Iterator[tuple[str, str]]:
    convolution = {"op": "conv"} if published.startswith("input") else {"conv": "conv"}
    return _prefixed(published, ours, RESNET if config.resblock_updown else convolution)


def _prefixed(published: str, ours: str, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((f"{published}.{theirs}", f"{ours}.{name}") for theirs, name in names.items())


def check_hash(path: Path, sha256: str | None) -> None:
    """ValueError if a hash is given and the file has another one."""
    if sha256 is None:
        return
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.lower():
        raise ValueError(f"{path} is damaged or another file: sha256 is {found}, expected {sha256}")
