"""OpenAI's UNets in plain torch, under the published names: the truth of test_openai_unet.py.

Written from the architecture (Nichol & Dhariwal 2021, Dhariwal & Nichol 2021), with nothing of the kit or of
diffusers in it. Linear layers, convolutions and norms carry the published names, so `state_dict()` has the
published layout. Nothing is initialised to zero, as training would start: a zero layer would hide a mistake.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """GroupNorm, SiLU, conv; scale and shift by the time; GroupNorm, SiLU, conv; all beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, time: int, resample: str = "") -> None:
        super().__init__()
        self.resample = resample
        self.in_layers = nn.ModuleDict({"0": nn.GroupNorm(32, inputs), "2": nn.Conv2d(inputs, outputs, 3, padding=1)})
        self.emb_layers = nn.ModuleDict({"1": nn.Linear(time, 2 * outputs)})
        self.out_layers = nn.ModuleDict(
            {"0": nn.GroupNorm(32, outputs), "3": nn.Conv2d(outputs, outputs, 3, padding=1)}
        )
        if inputs != outputs:
            self.skip_connection = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = F.silu(self.in_layers["0"](x))
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        if self.resample == "up":
            h, x = double(h), double(x)
        h = self.in_layers["2"](h)
        scale, shift = self.emb_layers["1"](F.silu(time))[:, :, None, None].chunk(2, dim=1)
        h = self.out_layers["0"](h) * (1 + scale) + shift
        h = self.out_layers["3"](F.silu(h))
        return h + (self.skip_connection(x) if hasattr(self, "skip_connection") else x)


class Attention(nn.Module):
    """Self-attention over pixels. The rows of qkv go to the heads in turn, each with its q, k and v."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        pixels = self.norm(x).flatten(2)
        answers = []
        for rows in self.qkv(pixels).chunk(self.heads, dim=1):
            q, k, v = rows.chunk(3, dim=1)
            weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(q.shape[1]), dim=-1)  # (N, query, key)
            answers.append(v @ weights.transpose(1, 2))
        return x + self.proj_out(torch.cat(answers, dim=1)).view_as(x)


class Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.conv(double(x))


class Input(nn.Conv2d):
    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return super().forward(x)


def double(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


class ReferenceUNet(nn.Module):
    """With `head_channels` (guided-diffusion) or `heads` (improved-diffusion); output (epsilon, variance)."""

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        mult: tuple[int, ...],
        blocks: int,
        attention: tuple[int, ...],
        updown: bool,
        heads: int = 0,
        head_channels: int = 0,
        rescale: float = 1.0,
    ) -> None:
        super().__init__()
        self.channels, self.rescale = channels, rescale
        time = 4 * channels
        self.time_embed = nn.ModuleDict({"0": nn.Linear(channels, time), "2": nn.Linear(time, time)})

        def attend(width: int, size: int) -> list[nn.Module]:
            return [Attention(width, heads or width // head_channels)] if size in attention else []

        width, size = channels, image_size
        self.input_blocks = nn.ModuleList([nn.ModuleList([Input(3, width, 3, padding=1)])])
        skips = [width]
        for level, factor in enumerate(mult):
            for _ in range(blocks):
                new = factor * channels
                self.input_blocks.append(nn.ModuleList([Residual(width, new, time), *attend(new, size)]))
                width = new
                skips.append(width)
            if level + 1 < len(mult):
                down = Residual(width, width, time, "down") if updown else Down(width)
                self.input_blocks.append(nn.ModuleList([down]))
                skips.append(width)
                size //= 2
        middle = [Residual(width, width, time), Attention(width, heads or width // head_channels)]
        self.middle_block = nn.ModuleList([*middle, Residual(width, width, time)])
        self.output_blocks = nn.ModuleList()
        for level, factor in reversed(list(enumerate(mult))):
            for i in range(blocks + 1):
                new = factor * channels
                block = [Residual(width + skips.pop(), new, time), *attend(new, size)]
                width = new
                if level and i == blocks:
                    block.append(Residual(width, width, time, "up") if updown else Up(width))
                    size *= 2
                self.output_blocks.append(nn.ModuleList(block))
        self.out = nn.ModuleDict({"0": nn.GroupNorm(32, width), "2": nn.Conv2d(width, 6, 3, padding=1)})

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        frequencies = 10000 ** (-torch.arange(self.channels // 2) / (self.channels // 2))
        angles = (t * self.rescale)[:, None] * frequencies
        time = self.time_embed["0"](torch.cat([angles.cos(), angles.sin()], dim=1))
        time = self.time_embed["2"](F.silu(time))
        skips = []
        for block in self.input_blocks:
            x = run(block, x, time)
            skips.append(x)
        x = run(self.middle_block, x, time)
        for block in self.output_blocks:
            x = run(block, torch.cat([x, skips.pop()], dim=1), time)
        return self.out["2"](F.silu(self.out["0"](x)))


def run(block: nn.ModuleList, x: Tensor, time: Tensor) -> Tensor:
    for layer in block:
        x = layer(x, time)
    return x
