"""Noise and counts: how often f answers each class on noisy copies of an image."""

from lib.sampling.counts import class_counts
from lib.sampling.noise import NOISE_SCHEME, standard_normal, uniform_bits

__all__ = ["NOISE_SCHEME", "class_counts", "standard_normal", "uniform_bits"]
