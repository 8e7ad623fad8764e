"""ACES: a smoothed selection says where a certified model answers, and where an accurate one (Horvath et al. 2022)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EntropySelection(nn.Module):
    """1 where `network` is sure of its answer, else 0: (N, C, H, W) -> logits (N, K), of which only 0 and 1 answer.

    Sure is an entropy of softmax(f(x)), divided by ln K so that it lies in [0, 1], of at most `threshold`. Smoothed,
    its majority under noise is s of ACES, certified as any classifier is (what its record calls correct says nothing);
    `lib.bounds.composed` puts the certificates of s and of the smoothed `network` together. With the same ids and seed
    both see the same noise. threshold = 1: always 1; below 0: never (Horvath et al. 2022). ValueError for
    NaN.
    """

    def __init__(self, network: nn.Module, threshold: float) -> None:
        super().__init__()
        if math.isnan(threshold):
            raise ValueError("threshold must be a number, from 0 to 1 as a rule; got NaN")
        self.network, self.threshold = network, float(threshold)
        self.training = network.training

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        sure = normalised_entropy(logits) <= self.threshold
        return F.one_hot(sure.long(), logits.shape[1]).to(images.dtype)


class LearnedSelection(nn.Module):
    """1 where the first output of `head`, softmaxed, is at most `threshold`, else 0: the learned selection of ACES.

    `head`: a network of two outputs, trained to put its mass on the second where the certified model is robust. Logits
    are (N, num_classes), as those of the model, so that both are certified on the same labels.
    """

    def __init__(self, head: nn.Module, num_classes: int, threshold: float = 0.5) -> None:
        super().__init__()
        self.head, self.num_classes, self.threshold = head, int(num_classes), float(threshold)
        self.training = head.training

    def forward(self, images: Tensor) -> Tensor:
        sure = self.head(images).softmax(1)[:, 0] <= self.threshold
        return F.one_hot(sure.long(), self.num_classes).to(images.dtype)


def normalised_entropy(logits: Tensor) -> Tensor:
    """H(softmax(logits)) / ln K of each row, in [0, 1]: (N, K) -> (N,)."""
    p = logits.softmax(1)
    return (torch.special.entr(p).sum(1) / math.log(logits.shape[1])).clamp(0, 1)
