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


# image_shape -> the UNet that a reader trains for it
UNETS: dict[tuple[int, int, int], Callable[[], UNet2DModel]] = {
    (1, 8, 8): digits_unet,
    (3, 32, 32): cifar_unet,
}
