"""What an attack makes large, and how it gets a gradient through steps that have none."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

AT_ONCE = 2**21  # numbers in the noisy copies whose activations are kept for the gradient: 682 images of CIFAR-10


def smoothed_loss(
    base: nn.Module,
    labels: Tensor,
    *,
    sigma: float = 0.0,
    samples: int = 1,
    generator: torch.Generator | None = None,
) -> Callable[[Tensor], Tensor]:
    """The loss x -> -log mean_i softmax(f(x + noise_i))_y that breaks g (Salman et al. 2019, section 2.2), (N,).

    It is the logarithm of the mean over `samples` noisy copies of level `sigma`, fresh at every call, not the mean of
    the logarithms. With sigma = 0 it is the cross-entropy of `base` itself. `labels` (N,): the classes to leave;
    `generator`, on the images' device, draws the noise. Of a `base` in eval mode, many copies go through in parts and
    each part once more for the gradient, so memory does not grow with their number.
    ValueError for noise without a generator, or no copies.
    """
    if not 0 <= sigma < math.inf or samples < 1 or (sigma > 0 and generator is None):
        raise ValueError(f"sigma must be finite and at least 0, samples at least 1, and noise needs a generator; got "
                         f"{sigma=}, {samples=}, {generator=}")  # fmt: skip

    def loss(x: Tensor) -> Tensor:
        copies = x.repeat_interleave(samples, dim=0)  # (N * samples, ...), the copies of an image side by side
        if sigma:
            copies = copies + sigma * torch.randn(copies.shape, generator=generator, device=x.device)
        return mean_softmax_loss(_logits(base, copies), labels)

    return loss


def _logits(base: nn.Module, copies: Tensor) -> Tensor:
    """base(copies), in parts where that changes nothing: statistics of a batch, in training, belong to the whole."""
    rows = max(1, AT_ONCE // max(1, copies[:1].numel()))
    if len(copies) <= rows or getattr(base, "training", True):
        return base(copies)
    return torch.cat([checkpoint(base, part, use_reentrant=False) for part in copies.split(rows)])


def mean_softmax_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """-log mean_i softmax(logits_i)_y of each image, (N,); logits (N * m, K): the m copies of an image side by side."""
    samples = len(logits) // max(len(labels), 1)
    log_p = -F.cross_entropy(logits, labels.repeat_interleave(samples), reduction="none")
    return math.log(max(samples, 1)) - log_p.view(len(labels), -1).logsumexp(1)


def straight_through(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`function` forward, the identity backward: BPDA for steps such as rounding (Athalye et al. 2018, section 4.1).

    ValueError, when it is called, where `function` changes the shape.
    """

    def wrapped(x: Tensor) -> Tensor:
        with torch.no_grad():
            value = function(x)
        if value.shape != x.shape:
            raise ValueError(f"straight_through: the function must keep the shape {tuple(x.shape)}, "
                             f"it gave {tuple(value.shape)}")  # fmt: skip
        return value + (x - x.detach())  # the value, for the difference is zero; its gradient is that of x

    return wrapped
