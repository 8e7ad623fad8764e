"""Several networks as one base classifier: means, votes, the surest member, and K-consensus."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.bounds.arguments import whole_number


def _votes(logits: Tensor) -> Tensor:
    return F.one_hot(logits.argmax(2), logits.shape[2]).to(logits).mean(0)


def _surest(logits: Tensor) -> Tensor:
    first, second = logits.softmax(2).topk(2, dim=2).values.unbind(2)  # (members, N) each
    return logits[(first - second).argmax(0), torch.arange(logits.shape[1], device=logits.device)]


# Logits of the members (members, N, K) -> of the ensemble (N, K).
AGGREGATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda logits: logits.mean(0),  # the rule of Horvath et al. 2022
    "votes": _votes,  # a tie goes to the lower class
    "softmax": lambda logits: logits.softmax(2).mean(0),  # the "weighted ensemble" of Yang et al. 2022, equal weights
    "max-margin": _surest,  # theirs, too: the member with the largest gap between its two highest probabilities
}


class Ensemble(nn.Module):
    """`members`, classifiers of the same images and classes, as one f: (N, C, H, W) -> (N, K).

    `aggregation`: a name of AGGREGATIONS; the mean of the logits by default (Horvath et al. 2022). One f, so
    every certificate for a base classifier holds for it. ValueError for no member or an unknown name.
    """

    def __init__(self, members: Sequence[nn.Module], aggregation: str = "logits") -> None:
        super().__init__()
        if not members:
            raise ValueError("members must be at least one network; got none")
        if aggregation not in AGGREGATIONS:
            raise ValueError(f"aggregation must be one of {', '.join(AGGREGATIONS)}; got {aggregation!r}")
        self.members, self.aggregation = nn.ModuleList(members), aggregation
        self.training = self.members.training = any(member.training for member in members)

    def forward(self, images: Tensor) -> Tensor:
        return AGGREGATIONS[self.aggregation](torch.stack([member(images) for member in self.members]))


class Consensus(nn.Module):
    """K-consensus: where the `first` members agree their answer counts, elsewhere the mean of all logits.

    The others see only the images on which the first disagree, so an image costs first + (share of disagreement) times
    (members - first) evaluations (Horvath et al. 2022). It is a fixed function of the image, another one
    than the whole ensemble: counts of the two do not mix. `members` and errors as in `Ensemble`; ValueError for `first`
    that is no whole number from 1 to their number.
    """

    def __init__(self, members: Sequence[nn.Module], first: int) -> None:
        super().__init__()
        if not members:
            raise ValueError("members must be at least one network; got none")
        self.members = nn.ModuleList(members)
        self.first = whole_number(first, "first", 1, len(members) + 1)
        self.training = self.members.training = any(member.training for member in members)

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.stack([member(images) for member in self.members[: self.first]])
        mean, torn = logits.mean(0), ~_agree(logits)
        rest = self.members[self.first :]
        if len(rest) and torn.any():
            others = torch.stack([member(images[torn]) for member in rest])
            mean[torn] = torch.cat([logits[:, torn], others]).mean(0)
        return mean

    def agrees(self, images: Tensor) -> Tensor:
        """Where the first members agree, so that the others are not asked; bool (N,)."""
        return _agree(torch.stack([member(images) for member in self.members[: self.first]]))


def _agree(logits: Tensor) -> Tensor:
    answers = logits.argmax(2)
    return (answers == answers[0]).all(0)


def variance_share(members: int, correlation: float) -> float:
    """The variance of the mean of `members` equally varying margins, over that of one: (1 + zeta (k - 1)) / k.

    zeta is the `correlation` of two members' margins under noise (Horvath et al. 2022).
    """
    return (1 + correlation * (members - 1)) / members
