"""The parameters of the notebooks: one frozen dataclass a notebook, checked when it is built."""

from lib.config.fields import parameter
from lib.config.notebooks import (
    NOTEBOOKS,
    CertifiedTraining,
    Common,
    DenoisedSmoothing,
    DiffusionDenoising,
    NoiseTraining,
    OtherCertificates,
    Presenting,
    QueryOnly,
    RandomizedSmoothing,
    Run,
    Training,
    WhyCertify,
    field_names,
    file_at,
    kit_root,
)
from lib.config.profiles import PROFILES, baseline_parameters, load_profile, parse

__all__ = [
    "NOTEBOOKS",
    "PROFILES",
    "CertifiedTraining",
    "Common",
    "DenoisedSmoothing",
    "DiffusionDenoising",
    "NoiseTraining",
    "OtherCertificates",
    "Presenting",
    "QueryOnly",
    "RandomizedSmoothing",
    "Run",
    "Training",
    "WhyCertify",
    "baseline_parameters",
    "field_names",
    "file_at",
    "kit_root",
    "load_profile",
    "parameter",
    "parse",
]  # fmt: skip
