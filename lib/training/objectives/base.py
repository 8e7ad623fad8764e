"""What an objective is."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Objective = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]
