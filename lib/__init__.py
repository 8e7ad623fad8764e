"""Certified robustness: one sampler, one certifier, one record; every paper is a different base classifier."""
