"""Noise and counts: how often f answers each class on noisy copies of an image."""

from lib.sampling.counts import class_counts
from lib.sampling.noise import Gaussian, Grid, Noise, standard_normal, uniform_bits

__all__ = ["Gaussian", "Grid", "Noise", "class_counts", "standard_normal", "uniform_bits"]
