"""Attacks: how an undefended classifier breaks, and how close to its radius a certificate can be brought to fail."""

from lib.attacks.adaptive import all_views_loss, answers_wrongly, fgsm, first_that_breaks, margin_loss
from lib.attacks.checklist import Checklist, checklist, input_gradient, zero_gradients
from lib.attacks.ddn import ddn
from lib.attacks.losses import mean_softmax_loss, smoothed_loss, straight_through
from lib.attacks.pgd import pgd
from lib.attacks.random_search import random_search

__all__ = [
    "Checklist", "all_views_loss", "answers_wrongly", "checklist", "ddn", "fgsm", "first_that_breaks", "input_gradient",
    "margin_loss", "mean_softmax_loss", "pgd", "random_search", "smoothed_loss", "straight_through", "zero_gradients",
]  # fmt: skip
