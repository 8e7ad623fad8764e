"""Reading checkpoints: the papers' `.pth.tar`, akamaster's `.th`, bare state_dicts, our `.safetensors`.

A `.pth` file is a pickle and a pickle can run code, so such files are opened with `weights_only=True`, which
knows tensors and plain containers and refuses everything else; NumPy's scalars are allowed beside them.
"""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lib.models.foreign_files import foreign_format

# Names under which weights are kept, best known first: Cohen, Salman, akamaster; PyTorch's tutorial; MACER; timm.
STATE_KEYS = ("state_dict", "model_state_dict", "net", "model_state", "model", "network", "weights", "params")
AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged)([._]|$)", re.IGNORECASE)  # model_ema, state_dict_ema, ema.model
PYTORCH_STARTS = (b"PK", b"\x80\x02")  # a zip file since PyTorch 1.6, a pickle before
SAVE_ALONE = "where it was made, save the weights alone: torch.save(model.state_dict(), 'weights.pth')"

# What a pickled np.float64(91.2) needs. NumPy 1 and 2 call the function by different names.
_SCALAR = np.float64(0).__reduce__()[0]
NUMPY_SCALARS = [
    *((_SCALAR, f"{module}.multiarray.scalar") for module in ("numpy.core", "numpy._core")),
    *(np.dtype, *{type(np.dtype(code)) for code in np.typecodes["All"] if code != "O"}),
]


@dataclass(frozen=True)
class Checkpoint:
    """A file's weights under the names stored there, and what else it says of them."""

    path: Path
    state: dict[str, Tensor]
    arch: str | None = None  # the architecture that it claims
    entry: str = ""  # where in the file the weights stood; empty where it holds nothing else
    ours: bool = False  # trained by this kit


def read_checkpoint(path: str | Path, entry: str | None = None) -> Checkpoint:
    """Read a file's weights on the CPU; epoch, accuracy and the optimizer's state in it are left alone.

    `entry` says which weights where a file has several ("state_dict_ema"); without it the raw ones are taken, and a
    warning says so. Raises FileNotFoundError, or ValueError for a truncated file, one that is no checkpoint, one that
    would run code, and NaN or infinite weights.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at path={str(path)!r}")
    with path.open("rb") as file:
        safetensors = path.suffix == ".safetensors" or file.read(10)[8:] == b'{"'
    checkpoint = _read_safetensors(path) if safetensors else _read_pickle(path, entry)
    check_finite(checkpoint.state, str(path))
    return checkpoint


def check_finite(state: Mapping[str, Tensor], where: str) -> None:
    """ValueError where a weight is NaN or infinite (in float32): such a network gives every image to class 0."""
    bad = [name for name, value in state.items() if not _as_float(value).isfinite().all()]
    if bad:
        count = int((~_as_float(state[bad[0]]).isfinite()).sum())
        raise ValueError(
            f"{where} holds NaN or infinite weights in {len(bad)} of {len(state)} tensors, first in {bad[0]} "
            f"({count} of {state[bad[0]].numel()} numbers): the training diverged, or the file is damaged"
        )


def _as_float(value: Tensor) -> Tensor:
    return value.to(torch.float32) if value.is_floating_point() else value


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            arch = (file.metadata() or {}).get("arch") or _arch_beside(path)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file: {error}") from error
    return Checkpoint(path, state, arch, ours=arch is not None)


def _arch_beside(path: Path) -> str | None:
    """The architecture in the .json that the training loop writes beside its weights."""
    try:
        facts = json.loads(path.with_suffix(".json").read_text())
        arch = facts.get("recipe", facts).get("arch")
    except (OSError, ValueError, AttributeError):  # no such file, or somebody else's
        return None
    return arch if isinstance(arch, str) else None


def _read_pickle(path: Path, entry: str | None) -> Checkpoint:
    foreign = foreign_format(path)
    if foreign:
        raise ValueError(f"{path} is not a PyTorch checkpoint, but {foreign}")
    with path.open("rb") as file:  # opened here, so that what is raised below is about the content
        try:
            with torch.serialization.safe_globals(NUMPY_SCALARS):
                content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged bytes lead the reader to any error, an OSError among them
            # `from None`: PyTorch's message advises weights_only=False, the last thing to do with such a file
            raise ValueError(_explain(path, str(error))) from None
    return _find_state(path, content, entry)


def _explain(path: Path, error: str) -> str:
    forbidden = re.search(r"GLOBAL (\S+)", error)
    if forbidden:
        return f"{path} would run code ({forbidden[1]}), not only hold tensors: it was not opened; {SAVE_ALONE}"
    with path.open("rb") as file:
        start = file.read(2)
    if start in (b"", *PYTORCH_STARTS):
        return f"{path} is truncated or damaged ({path.stat().st_size} bytes): fetch it again"
    return f"{path} is not a PyTorch checkpoint (it starts with {start!r})"


def _find_state(path: Path, content: object, entry: str | None) -> Checkpoint:
    found = dict(_states(content))
    if not found:
        held = f"the keys {few([str(key) for key in content])}" if isinstance(content, Mapping) else None
        raise ValueError(
            f"{path} holds no state_dict (a mapping of names to tensors), but {held or type(content).__name__}; "
            + SAVE_ALONE
        )
    chosen = _choose(path, found, entry)
    arch = content.get("arch") if isinstance(content, Mapping) else None
    state = {name: value for name, value in found[chosen].items() if name != "n_averaged"}  # of AveragedModel
    return Checkpoint(path, state, arch if isinstance(arch, str) else None, chosen)


def _states(content: object, name: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(entry, weights) of every mapping of names to tensors; an optimizer's state has numbers as names."""
    if not isinstance(content, Mapping) or not content or not all(isinstance(key, str) for key in content):
        return
    if all(isinstance(value, Tensor) for value in content.values()):
        yield name, dict(content)
    else:
        for key, value in content.items():
            yield from _states(value, f"{name}.{key}" if name else key)


def _choose(path: Path, found: Mapping[str, Mapping[str, Tensor]], entry: str | None) -> str:
    if entry is not None:
        if entry not in found:
            raise ValueError(f"{path} has no weights under entry={entry!r}, but under {sorted(found)}")
        return entry
    raw = [name for name in found if not AVERAGED.search(name)] or list(found)
    known = [name for key in STATE_KEYS for name in raw if name.rpartition(".")[2] == key] or raw
    if len(known) > 1 and known == raw:
        raise ValueError(f"{path} holds weights under {sorted(found)}: say which, for example entry={known[0]!r}")
    others = [name for name in found if name != known[0] and len(found[name]) >= len(found[known[0]])]
    if others:
        warnings.warn(
            f"{path} holds weights under {known[0]!r}, which were taken, and under {few(others)}: "
            f"pass entry={others[0]!r} for the others",
            stacklevel=6,
        )
    return known[0]


def few(items: list[str], most: int = 4) -> str:
    """The first items, for a message."""
    return ", ".join(items[:most]) + (", …" if len(items) > most else "")
