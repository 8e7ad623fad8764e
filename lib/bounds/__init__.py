"""Certificates as pure float64 maths: counts -> bounds on probabilities -> radii. SciPy, no torch.

Every function is vectorised by NumPy broadcasting and errs on the safe side: a lower bound is never above its exact
value, an upper bound never below, a radius never too large.
"""

from lib.bounds.anytime import anytime_lower_bound, anytime_upper_bound
from lib.bounds.binomial import (
    accuracy_interval,
    lower_confidence_bound,
    predict_pvalue,
    round_down,
    true_certified_accuracy,
    upper_confidence_bound,
)
from lib.bounds.certificate import ABSTAIN, AfterN, Bound, Certificate, StoppingRule
from lib.bounds.composed import composed, multiscale
from lib.bounds.l1 import laplace_radius, uniform_radius
from lib.bounds.privacy import PixelDPBound, RenyiBound, pixeldp_sigma
from lib.bounds.radii import certified_radius, least_votes, lp_radius, pixeldp_radius, renyi_radius
from lib.bounds.rounds import Rounds
from lib.bounds.scores import bernstein_width, hoeffding_width, score_probabilities
from lib.bounds.stopping import AtRadii, Tolerance, needed_shares

__all__ = [
    "ABSTAIN", "AfterN", "AtRadii", "Bound", "Certificate", "PixelDPBound", "RenyiBound", "Rounds", "StoppingRule",
    "Tolerance", "accuracy_interval", "anytime_lower_bound", "anytime_upper_bound", "bernstein_width",
    "certified_radius", "composed", "hoeffding_width", "laplace_radius", "least_votes", "lower_confidence_bound",
    "lp_radius", "multiscale", "needed_shares", "pixeldp_radius", "pixeldp_sigma", "predict_pvalue", "renyi_radius",
    "round_down", "score_probabilities", "true_certified_accuracy", "uniform_radius", "upper_confidence_bound",
]  # fmt: skip
