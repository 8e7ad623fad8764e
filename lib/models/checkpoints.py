"""Reading checkpoints: the papers' `.pth.tar`, akamaster's `.th`, bare state_dicts, our `.safetensors`.

A `.pth` file is a pickle and a pickle can run code, so such files are opened with `weights_only=True`, which
knows tensors and plain containers and refuses everything else.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

STATE_KEYS = ("state_dict", "net", "model")  # Cohen, Salman, akamaster; MACER; timm and others
PYTORCH_STARTS = (b"PK", b"\x80\x02")  # a zip file since PyTorch 1.6, a pickle before
WRAPPERS = ("module.", "1.", "network.")  # DataParallel; Sequential(Normalize, network); PretrainedClassifier


@dataclass(frozen=True)
class Checkpoint:
    """A file's weights under the names stored there, and the architecture it claims, if any."""

    path: Path
    state: dict[str, Tensor]
    arch: str | None = None


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file's weights on the CPU; epoch, accuracy and the optimizer's state in it are left alone.

    Raises FileNotFoundError, or ValueError for a truncated file, one that is no checkpoint, and one that
    would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at path={str(path)!r}")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def load_weights(network: nn.Module, checkpoint: Checkpoint, arch: str) -> None:
    """Copy a checkpoint into `network`, which was built as `arch`; every name and shape must match.

    Raises ValueError that says whether the architecture is another one, or which keys are missing, unexpected
    or misshaped.
    """
    if checkpoint.arch not in (None, arch):
        raise ValueError(f"{checkpoint.path} holds arch {checkpoint.arch!r}, asked for arch={arch!r}")
    expected = network.state_dict()
    state = _rename(checkpoint.state, expected)
    # akamaster's files have no batch counters; with a fixed momentum nothing reads them.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    misshaped = [
        f"{key} is {tuple(state[key].shape)}, the network has {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    problems = {"missing keys": missing, "unexpected keys": unexpected, "wrong shapes": misshaped}
    if any(problems.values()):
        details = "; ".join(f"{len(found)} {what}: {_few(found)}" for what, found in problems.items() if found)
        raise ValueError(f"{checkpoint.path} does not fit arch={arch!r}: {details}")
    network.load_state_dict(state, strict=False)


def is_akamaster(checkpoint: Checkpoint) -> bool:
    """Whether a file is laid out as akamaster/pytorch_resnet_cifar10's, whose last layer is `linear`."""
    return "module.linear.weight" in checkpoint.state and "module.layer3.0.conv1.weight" in checkpoint.state


def _rename(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take wrappers' prefixes off until names meet the network's; give akamaster's last layer our name."""
    state = dict(state)
    while not state.keys() & expected.keys():
        prefix = next((p for p in WRAPPERS if all(key.startswith(p) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    if "fc.weight" in expected and "linear.weight" in state:
        state |= {f"fc.{part}": state.pop(f"linear.{part}") for part in ("weight", "bias")}
    return state


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            arch = (file.metadata() or {}).get("arch")
            names = list(file.keys())
            return Checkpoint(path, {name: file.get_tensor(name) for name in names}, arch)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file: {error}") from error


def _read_pickle(path: Path) -> Checkpoint:
    with path.open("rb") as file:  # opened here, so that what is raised below is about the content
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged bytes lead the reader to any error, an OSError among them
            # `from None`: PyTorch's message advises weights_only=False, the last thing to do with such a file
            raise ValueError(_explain(path, str(error))) from None
    return Checkpoint(path, *_find_state(path, content))


def _explain(path: Path, error: str) -> str:
    forbidden = re.search(r"GLOBAL (\S+)", error)
    if forbidden:
        return f"{path} would run code ({forbidden[1]}), not only hold tensors: it was not opened"
    with path.open("rb") as file:
        start = file.read(2)
    if start in (b"", *PYTORCH_STARTS):
        return f"{path} is truncated or damaged ({path.stat().st_size} bytes): fetch it again"
    return f"{path} is not a PyTorch checkpoint (it starts with {start!r})"


def _find_state(path: Path, content: object) -> tuple[dict[str, Tensor], str | None]:
    if isinstance(content, Mapping):
        state = next((content[key] for key in STATE_KEYS if isinstance(content.get(key), Mapping)), content)
        if state and all(isinstance(value, Tensor) for value in state.values()):
            arch = content.get("arch")
            return dict(state), arch if isinstance(arch, str) else None
        found = f"the keys {_few([str(key) for key in content])}"
    else:
        found = type(content).__name__
    raise ValueError(f"{path} holds no state_dict (a mapping of names to tensors), but {found}")


def _few(items: list[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (", …" if len(items) > most else "")
