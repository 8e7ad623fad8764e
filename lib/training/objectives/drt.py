"""DRT: members of an ensemble that are sure, and whose gradients differ (Yang et al. 2022)."""

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from lib.training.objectives.base import Step
from lib.training.objectives.copies import CheckedNumbers, copies_cross_entropy, noise_of_copies, noisy_copies


@dataclass(frozen=True)
class DRT(CheckedNumbers):
    """Sum of the members' cross-entropies + diversity mean ||g_i + g_j||^2 - confidence mean u_i, on the same noise.

    u_i is the gap between the two highest probabilities of member i, g_i its gradient at the noisy image; the first
    mean is over the pairs of members, and copies, where both are right, the second over the members that are. It trains
    an `lib.models.ensembles.Ensemble`; a network without `members` is one member, and has no pairs. Each member answers
    once a step, so BatchNorm sees a batch once.
    Yang et al. 2022, in the form of the trainers that are public: the square of the norm, and margins of softmax. The
    two weights have no default. With both 0 the members are trained side by side on the same noise.
    """

    sigma: float
    diversity: float  # rho_1
    confidence: float  # rho_2
    copies: int = 1

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, step: Step) -> Tensor:
        noisy = noisy_copies(images, noise_of_copies(images, self.copies, self.sigma, step)).requires_grad_()
        answers = [member(noisy) for member in getattr(model, "members", [model])]
        loss = torch.stack([copies_cross_entropy(logits, labels, step) for logits in answers]).sum()
        copied = labels.long().repeat_interleave(self.copies)
        right = torch.stack([logits.argmax(1) == copied for logits in answers])  # (members, N * copies)
        margins = torch.stack([margin(logits) for logits in answers])
        if self.confidence:
            loss = loss - self.confidence * _mean(margins, right)
        if self.diversity and len(answers) > 1:
            gradients = [torch.autograd.grad(gap.sum(), noisy, create_graph=True)[0] for gap in margins]
            loss = loss + self.diversity * alignment(gradients, right)
        return loss


def margin(logits: Tensor) -> Tensor:
    """The highest probability less the second highest, (N,), from logits (N, K)."""
    first, second = logits.softmax(1).topk(2).values.unbind(1)
    return first - second


def alignment(gradients: list[Tensor], right: Tensor) -> Tensor:
    """Mean ||g_i + g_j||^2 over pairs and images where both are right, 0 for none; gradients (N, ...), right (k, N)."""
    pairs = list(combinations(range(len(gradients)), 2))
    squares = torch.stack([(gradients[i] + gradients[j]).flatten(1).square().sum(1) for i, j in pairs])
    return _mean(squares, torch.stack([right[i] & right[j] for i, j in pairs]))


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp_min(1)
