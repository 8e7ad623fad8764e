"""What a network is: a hash of everything that decides its answers."""

import hashlib

import numpy as np
from torch import nn


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over what a model prints as, and the names, shapes and bytes of all its parameters and buffers."""
    digest = hashlib.sha256(repr(model).encode())
    for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().float().numpy()))
    return digest.hexdigest()
