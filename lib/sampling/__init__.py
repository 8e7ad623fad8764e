"""Noise and counts: how often f answers each class on noisy copies of an image."""

from lib.sampling.counts import class_counts
from lib.sampling.noise import Gaussian, Grid, Noise, standard_normal, uniform_bits
from lib.sampling.other_noises import FeatureNoise, Laplace, Uniform
from lib.sampling.scores import Moments, certify_scores, score_moments

__all__ = [
    "FeatureNoise", "Gaussian", "Grid", "Laplace", "Moments", "Noise", "Uniform", "certify_scores", "class_counts",
    "score_moments", "standard_normal", "uniform_bits",
]  # fmt: skip
