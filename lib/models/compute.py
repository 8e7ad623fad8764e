"""How f is computed is part of what f is: precision, memory layout, folding, compilation.

In bfloat16 a network is another function than in float32, one that answers some noisy images otherwise. Either can be
certified, as long as the same one selects, votes and predicts. So the choice is made once, in words, as a part of f:

    f = Computed(network, "bfloat16, channels-last")        # then SmoothedClassifier(f, sigma, num_classes)

The first word is the precision of convolutions and matrix products: float32, tf32 (float32 with products of 10 bits;
what torch does to convolutions on a GPU by itself), bfloat16 or float16 by autocast. After it, in this order:

channels-last  pixels outermost in memory, which convolution kernels prefer
folded         batch normalisation folded into the convolutions before it; a diffusion model in front stays as it is
compiled       torch.compile, for batch sizes that are powers of two: choose such a batch_size, others are filled up
cuda-graphs    instead of that: the same, and the kernels of a batch launched at once: for small networks on a GPU
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from lib.words import COMPUTE

LEAST_ROWS = 16  # compiled batches are filled up to a power of two from here on

# torch.compile keeps 8 kernels a function and then, unless told otherwise, goes on without compiling: another f.
COMPILER = {"recompile_limit": 1000, "accumulated_recompile_limit": 10_000, "fail_on_recompile_limit_hit": True}


@dataclass(frozen=True)
class Compute:
    """The words of the module's docstring, read: `Compute.parse("bfloat16, channels-last")`."""

    precision: str = "float32"
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, words: str) -> "Compute":
        """ValueError where a word is unknown, twice there, or not in its place."""
        if not re.fullmatch(COMPUTE["pattern"], words):
            raise ValueError(f"compute = {words!r}: expected {COMPUTE['example']}")
        precision, *options = words.split(", ")
        return cls(precision, tuple(options))

    @property
    def compiles(self) -> bool:
        """Whether torch.compile takes part, so that every new batch size costs a compilation."""
        return "compiled" in self.options or "cuda-graphs" in self.options

    def lay_out(self, value: nn.Module | Tensor) -> nn.Module | Tensor:
        """A network (in place) or a batch in the memory layout that is asked for."""
        return value.to(memory_format=torch.channels_last) if "channels-last" in self.options else value

    def compile(self, call: Callable) -> Callable:
        """What runs in place of `call`."""
        if not self.compiles:
            return call
        mode = "reduce-overhead" if "cuda-graphs" in self.options else None  # torch's name for CUDA graphs
        return torch.compile(call, dynamic=False, mode=mode)

    @contextmanager
    def settings(self) -> Iterator[None]:
        """torch's switches for TF32 and its compiler as asked for, cuDNN set to answer alike each time; then as before.

        They are a process's.

        ValueError where somebody has set `fp32_precision` of torch.backends, which torch does not let one combine.
        """
        try:
            cudnn = torch.backends.cudnn
            before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.deterministic
        except RuntimeError as error:
            raise ValueError(f"compute sets TF32 itself, not torch.backends.*.fp32_precision: {error}") from error
        tf32 = self.precision == "tf32"
        with torch._dynamo.config.patch(COMPILER) if self.compiles else nullcontext():
            try:
                torch.set_float32_matmul_precision("high" if tf32 else "highest")
                cudnn.allow_tf32, cudnn.deterministic = tf32, True
                yield
            finally:
                torch.set_float32_matmul_precision(before[0])
                cudnn.allow_tf32, cudnn.deterministic = before[1:]

    def autocast(self, device: torch.device) -> torch.autocast:
        """Forward passes on `device` in half precision, or expressly not, whatever autocast is on outside."""
        dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.precision)
        return torch.autocast(device.type, dtype, enabled=dtype is not None)


class Computed(nn.Module):
    """f: `network` computed as `compute` says (see above); images (N, C, H, W) in [0, 1] -> float32 logits (N, K).

    What a smoothed classifier's record keeps of f names these words, so another way is another record. Channels-last
    changes the layout of `network`'s weights in place, folding makes a copy of it.
    ValueError for unknown words, or where torch.fx cannot follow a network that is to be folded.
    """

    def __init__(self, network: nn.Module, compute: str = "float32") -> None:
        super().__init__()
        self.compute, self._how = compute, Compute.parse(compute)
        self.network = self._how.lay_out(_folded(network) if "folded" in self._how.options else network)
        self._call = None  # compiled at the first batch, in the process that needs it
        self.training = network.training

    def extra_repr(self) -> str:
        return self.compute

    def identity(self) -> str:
        """What of f is in this layer, as `lib.models.identity` asks: the words, not the compiled code."""
        return self.compute

    def forward(self, images: Tensor) -> Tensor:
        batch = self._how.lay_out(_filled_up(images) if self._how.compiles else images)
        if self._call is None:
            self._call = self._how.compile(lambda batch: self.network(batch))
        with self._how.settings(), self._how.autocast(images.device):
            logits = self._call(batch)[: len(images)]
        return logits.to(torch.float32, copy=True)  # a CUDA graph writes into the same memory next time

    def __getstate__(self) -> dict:
        """Compiled code stays where it is: a copy, or a worker of a cluster, compiles its own."""
        return super().__getstate__() | {"_call": None}


def _folded(network: nn.Module) -> nn.Module:
    if network.training:
        raise ValueError("folded needs a network in eval mode: call network.eval() first")
    if _is_diffusion(network):
        raise ValueError("folded is not for diffusion models: they have no batch normalisation, leave the word out")
    try:
        traced = fx.GraphModule(network, _AroundDiffusion().trace(network))
    except Exception as error:  # whatever the network's own code says to the stand-ins that it is traced with
        raise ValueError(f"torch.fx cannot trace {type(network).__name__}, leave 'folded' out: {error}") from error
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for name, times in calls.items():
        if times > 1 and isinstance(traced.get_submodule(name), (nn.Conv2d, nn.BatchNorm2d)):
            raise ValueError(f"{name} of {type(network).__name__} is used {times} times, leave 'folded' out")
    return fuse(traced, no_trace=True).eval().requires_grad_(False)


class _AroundDiffusion(fx.Tracer):
    """Sees a denoiser that is a diffusion model as one call."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_diffusion(m) or super().is_leaf_module(m, module_qualified_name)


def _is_diffusion(module: nn.Module) -> bool:
    return hasattr(module, "expected_sigma")


def _filled_up(images: Tensor) -> Tensor:
    """Rows of zeros after the last image, up to a power of two: each batch size is compiled once, and takes long."""
    size = max(LEAST_ROWS, 1 << (len(images) - 1).bit_length())
    return F.pad(images, (0, 0) * (images.ndim - 1) + (0, size - len(images)))
