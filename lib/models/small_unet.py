"""UNets that a reader can train: diffusers' UNet2DModel at the size of the digits and of CIFAR-10."""

from collections.abc import Callable

from diffusers import UNet2DModel


def digits_unet() -> UNet2DModel:
    """A UNet for digits (N, 1, 8, 8) with 0.65 million parameters; useful after a minute on a CPU.

    Its only attention is in the middle: in the 4x4 blocks, too, it costs a tenth of the epochs and denoises no better.
    """
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        attention_head_dim=16,
        norm_num_groups=8,  # the default 32 would be one channel a group in the first block
    )


def cifar_unet() -> UNet2DModel:
    """The UNet of Ho et al. 2020 (appendix B) for CIFAR-10 (N, 3, 32, 32): 35.7 million parameters."""
    return UNet2DModel(
        sample_size=32,
        layers_per_block=2,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,  # one head over all channels, at 16x16 and in the middle
        dropout=0.1,
    )


def cifar_unet_small() -> UNet2DModel:
    """A UNet for CIFAR-10 (N, 3, 32, 32) that two CPU cores can train: 4.1 million parameters, attention in the middle.

    Most channels are where images are small, since normalisation and activations at 32 x 32 cost a processor more
    than arithmetic does.
    """
    return UNet2DModel(
        sample_size=32,
        layers_per_block=1,
        block_out_channels=(32, 64, 128, 128),
        down_block_types=("DownBlock2D",) * 4,
        up_block_types=("UpBlock2D",) * 4,
        attention_head_dim=32,
        norm_num_groups=8,
    )


# what the parameter `diffusion` says -> image_shape -> the UNet that is trained
UNETS: dict[str, dict[tuple[int, int, int], Callable[[], UNet2DModel]]] = {
    "train": {(1, 8, 8): digits_unet, (3, 32, 32): cifar_unet},
    "train small": {(3, 32, 32): cifar_unet_small},
}
