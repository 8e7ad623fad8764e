"""The methods as notebooks call them: from a notebook's parameters to trained weights and certified records.

A file a paper. Notebooks that name the same recipe share its weights.
"""

from lib.config import baseline_parameters
from lib.methods.carlini2023 import (
    cost,
    denoised,
    denoisers_by_steps,
    diffusion_denoiser,
    diffusion_model,
    trained_behind,
)
from lib.methods.certificates import HalfSpace, LowBits, for_noise
from lib.methods.cohen2019 import (
    changed_by_attack,
    clean_classifier,
    noise_trained_classifier,
    trained_classifier,
)
from lib.methods.common import certified, smoothed
from lib.methods.heuristic import (
    adversarially_trained_classifier,
    distilled_classifier,
    squeezable_classifier,
    squeezing_detector,
)
from lib.methods.query_only import (
    kept_answers,
    other_pictures,
    picture_denoisers,
    queried_classifier,
    queries_taken,
)
from lib.methods.salman2020 import (
    held_out_stability,
    mse_denoiser,
    stab_denoiser,
    stab_mse_denoiser,
    stab_mse_denoisers,
)
from lib.methods.training import boosted_members, method_classifier, method_names, training_method

__all__ = [
    "HalfSpace", "LowBits", "adversarially_trained_classifier", "baseline_parameters", "boosted_members",
    "certified", "changed_by_attack", "clean_classifier", "cost", "denoised", "denoisers_by_steps",
    "diffusion_denoiser", "diffusion_model", "distilled_classifier", "for_noise", "held_out_stability", "kept_answers",
    "method_classifier", "method_names", "mse_denoiser", "noise_trained_classifier", "other_pictures",
    "picture_denoisers", "queried_classifier", "queries_taken", "smoothed",
    "squeezable_classifier", "squeezing_detector", "stab_denoiser", "stab_mse_denoiser", "stab_mse_denoisers",
    "trained_behind", "trained_classifier", "training_method",
]  # fmt: skip
