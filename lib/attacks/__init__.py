"""Attacks: how an undefended classifier breaks, and how close to its radius a certificate can be brought to fail."""

from lib.attacks.pgd import pgd_l2

__all__ = ["pgd_l2"]
