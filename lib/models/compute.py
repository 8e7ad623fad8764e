"""How f is computed is part of what f is: precision, memory layout, folding, compilation.

In bfloat16 a network is another function than in float32, one that answers some noisy images otherwise. Either can be
certified, as long as the same one selects, votes and predicts. So the choice is made once, in words, as a part of f:

    f = Computed(network, "bfloat16, channels-last")        # then SmoothedClassifier(f, sigma, num_classes)

The first word is the precision of convolutions and matrix products: float32, tf32 (float32 with products of 10 bits;
what torch does to convolutions on a GPU by itself), bfloat16 or float16 by autocast. After it, in any number:

channels-last  pixels outermost in memory, which convolution kernels prefer
folded         batch normalisation folded into the convolutions before it
compiled       torch.compile, with a kernel for each of a few batch sizes
cuda-graphs    the same, and the kernels of a batch launched at once: for small networks on a GPU
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from lib.config import OPTIONS, PRECISIONS

LEAST_ROWS = 128  # compiled batches are filled up to a power of two from here on


@dataclass(frozen=True)
class Compute:
    """The words of the module's docstring, read: `Compute.parse("bfloat16, channels-last")`."""

    precision: str = "float32"
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, words: str) -> "Compute":
        """ValueError where a word is unknown, twice there, or not in its place."""
        precision, *options = words.split(", ")
        if precision not in PRECISIONS or not set(options) <= set(OPTIONS) or len(options) > len(set(options)):
            raise ValueError(
                f"compute = {words!r}: one of {', '.join(PRECISIONS)}, then any of {', '.join(OPTIONS)}, "
                "separated by a comma and a space"
            )
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
    def precise(self, device: torch.device) -> Iterator[None]:
        """Forward passes on `device` in the precision that is asked for, whatever is set outside."""
        dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.precision)
        with _products(tf32=self.precision == "tf32"), torch.autocast(device.type, dtype, enabled=dtype is not None):
            yield


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
        self.train(network.training)

    def extra_repr(self) -> str:
        return self.compute

    def forward(self, images: Tensor) -> Tensor:
        batch = self._how.lay_out(_filled_up(images) if self._how.compiles else images)
        if self._call is None:
            self._call = self._how.compile(lambda batch: self.network(batch))
        with self._how.precise(images.device):
            return self._call(batch)[: len(images)].float()

    def __getstate__(self) -> dict:
        """Compiled code stays where it is: a copy, or a worker of a cluster, compiles its own."""
        return super().__getstate__() | {"_call": None}


def _folded(network: nn.Module) -> nn.Module:
    if network.training:
        raise ValueError("folded needs a network in eval mode: call network.eval() first")
    if any(hasattr(module, "expected_sigma") for module in network.modules()):
        raise ValueError("folded is not for diffusion models: they have no batch normalisation, leave the word out")
    try:
        return fuse(network).eval().requires_grad_(False)
    except Exception as error:  # whatever the network's own code says to the stand-ins that it is traced with
        raise ValueError(f"torch.fx cannot trace {type(network).__name__}, leave 'folded' out: {error}") from error


def _filled_up(images: Tensor) -> Tensor:
    """Rows of zeros after the last image, up to a power of two: each batch size is compiled once, and takes long."""
    size = max(LEAST_ROWS, 1 << (len(images) - 1).bit_length())
    return F.pad(images, (0, 0) * (images.ndim - 1) + (0, size - len(images)))


@contextmanager
def _products(tf32: bool) -> Iterator[None]:
    """Convolutions and matrix products on a GPU with TF32, or without it; as before afterwards."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = matmul.allow_tf32
    kept = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "benchmark_limit", "deterministic")}
    try:
        with cudnn.flags(**kept, allow_tf32=tf32):
            matmul.allow_tf32 = tf32
            yield
    finally:
        matmul.allow_tf32 = before
