"""Attacks: how an undefended classifier breaks, and how close to its radius a certificate can be brought to fail."""

from lib.attacks.ddn import ddn
from lib.attacks.losses import mean_softmax_loss, smoothed_loss, straight_through
from lib.attacks.pgd import pgd

__all__ = ["ddn", "mean_softmax_loss", "pgd", "smoothed_loss", "straight_through"]
