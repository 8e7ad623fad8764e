"""Fitting a checkpoint's weights to a network: prefixes of wrappers, other names, shapes and types."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from lib.models.checkpoints import Checkpoint, few

WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|module)\.")  # torch.compile's and DataParallel's, anywhere in a name


def load_weights(network: nn.Module, checkpoint: Checkpoint, arch: str) -> None:
    """Copy a checkpoint into `network`, which was built as `arch`; every name and shape must match.

    A prefix that all names share ("module.", "1.", "model.", "_orig_mod.", one inside another) may differ. Half and
    double precision are converted; whole numbers in place of a float parameter are refused. Raises ValueError that
    says which keys are missing, unexpected, misshaped or of another type.
    """
    expected = network.state_dict()
    state = renamed(checkpoint.state, expected)
    problems = misfits(state, expected)
    if problems:
        raise ValueError(f"{checkpoint.path} does not fit arch={arch!r}: {'; '.join(problems)}")
    network.load_state_dict(state, strict=False)


def misfits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """What keeps `state` from being loaded, one phrase a kind; empty where it fits."""
    # akamaster's files have no batch counters; with a fixed momentum nothing reads them.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    both = [(key, state[key], value) for key, value in expected.items() if key in state]
    shapes = [
        f"{key} is {tuple(found.shape)}, the network has {tuple(value.shape)}"
        for key, found, value in both
        if found.shape != value.shape
    ]
    types = [  # a quantized weight, for example, would lose its scale
        f"{key} is {found.dtype}, the network has {value.dtype}"
        for key, found, value in both
        if value.is_floating_point() and not found.is_floating_point()
    ]
    problems = {"missing keys": missing, "unexpected keys": unexpected, "wrong shapes": shapes, "wrong types": types}
    return [f"{len(found)} {what}: {few(found)}" for what, found in problems.items() if found]


def renamed(state: Mapping[str, Tensor], expected: Mapping[str, object]) -> dict[str, Tensor]:
    """`state` under the names that meet most of `expected`: prefixes off, akamaster's last layer under our name."""
    versions = [*_without_prefixes(state)]
    bare = {WRAPPERS.sub("", key): value for key, value in state.items()}
    if len(bare) == len(state):
        versions += _without_prefixes(bare)
    named = [_our_last_layer(version, expected) for version in versions]
    return max(named, key=lambda version: len(version.keys() & expected.keys()))


def _without_prefixes(state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """`state` as it is, and with one, two, … of the prefixes taken off that all names share."""
    versions = [dict(state)]
    while True:
        prefix = next(iter(versions[-1]), "").partition(".")[0] + "."
        if not all(key.startswith(prefix) for key in versions[-1]) or not versions[-1]:
            return versions
        versions.append({key.removeprefix(prefix): value for key, value in versions[-1].items()})


def _our_last_layer(state: dict[str, Tensor], expected: Mapping[str, object]) -> dict[str, Tensor]:
    if "fc.weight" in expected and "linear.weight" in state:
        return {re.sub(r"^linear\.", "fc.", key): value for key, value in state.items()}
    return state
