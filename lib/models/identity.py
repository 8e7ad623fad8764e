"""What a classifier is, as a hash: its classes, its weights, and every attribute that may decide an answer.

A name is not enough: two networks of equal weights differ by a temperature, a mean, an address. What cannot be told
apart by looking (a lambda, an open connection) brings a method `identity()` of its own, or is refused.
"""

import enum
import functools
import hashlib
import json
import logging
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

# What torch keeps in every module; of these only hooks that change an answer count. `training` is checked elsewhere.
_HOOKS = {"_forward_hooks", "_forward_pre_hooks"}
_INTERNAL = set(vars(nn.Module())) - _HOOKS | {"_is_hf_initialized", "_compiled_call_impl", "_is_torch_compile"}
# Where a configuration came from, not what it says; the last one is a list in an order of each process's own.
_PROVENANCE = {"_diffusers_version", "_name_or_path", "_use_default_values"}
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.layout, torch.memory_format)


def identity(module: nn.Module, weights: bool = True) -> str:
    """SHA-256 (64 hex digits) of what decides the answers of `module`.

    That is, for it and all modules inside: class, parameters and buffers (names, shapes, types, bytes), and plain
    attributes: numbers, texts, arrays, functions by their name, containers and objects of these. A module or object
    with a method `identity()` is what that returns (JSON values), besides its weights. `weights=False` leaves out the
    bytes: the structure alone. Not seen: the code of a class, a file that `forward` reads. An attribute that `forward`
    changes makes it another f. ValueError, with the place and what to do, for what cannot be told apart from others.
    """
    digest = hashlib.sha256()
    for line in _lines(module, "f", weights, set()):
        digest.update(line if isinstance(line, bytes) else line.encode() + b"\n")
    return digest.hexdigest()


Lines = Iterator[str | bytes]


def _lines(value: Any, place: str, weights: bool, above: set[int]) -> Lines:
    """What is hashed of a value; `above` holds the ids of the objects that contain it."""
    if isinstance(value, _PLAIN):
        yield f"{place} {type(value).__name__} {value!r}"
    elif isinstance(value, torch.device):  # where it is computed is no part of f
        return
    elif isinstance(value, (Tensor, np.ndarray, np.generic)):
        yield from _array(value, place, weights)
    elif isinstance(value, enum.Enum | PurePath | slice | range):
        yield f"{place} {type(value).__name__} {value}"
    elif isinstance(value, type):
        yield f"{place} class {value.__module__}.{value.__qualname__}"
    elif id(value) in above:
        yield f"{place} contains itself"
    else:
        yield from _compound(value, place, weights, above | {id(value)})


def _compound(value: Any, place: str, weights: bool, above: set[int]) -> Lines:
    """Containers, modules, functions and objects."""
    if isinstance(value, nn.Module):
        yield from _module(value, place, weights, above)
    elif own := _own(value):
        yield f"{place} {type(value).__qualname__} {_told(own(), place)}"
    elif isinstance(value, types.ModuleType):
        yield f"{place} module {value.__name__}"
    elif isinstance(value, logging.Logger):  # it decides no answer
        return
    elif isinstance(value, Mapping):
        yield f"{place} mapping {len(value)}"
        for key in sorted(value.keys() - _PROVENANCE, key=repr):
            yield from _lines(value[key], f"{place}.{key}", weights, above)
    elif isinstance(value, (list, tuple)):
        yield f"{place} sequence {len(value)}"
        for i, item in enumerate(value):
            yield from _lines(item, f"{place}[{i}]", weights, above)
    elif isinstance(value, (set, frozenset)):
        yield from _lines(sorted(value, key=repr), f"{place} set", weights, above)
    elif isinstance(value, functools.partial):
        yield from _lines({"f": value.func, "args": value.args, **value.keywords}, place, weights, above)
    elif isinstance(value, types.MethodType):
        yield f"{place} method {value.__func__.__qualname__}"
        yield from _lines(value.__self__, place, weights, above)
    elif callable(value) and hasattr(value, "__qualname__"):
        yield f"{place} function {_named(value, place)}"
    elif hasattr(value, "__dict__") and not isinstance(value, torch.Generator):
        yield f"{place} object {type(value).__module__}.{type(value).__qualname__}"
        yield from _lines(vars(value), place, weights, above)
    else:
        raise ValueError(_refusal(place, value))


def _module(module: nn.Module, place: str, weights: bool, above: set[int]) -> Lines:
    if isinstance(module, nn.DataParallel) or type(module).__name__ == "OptimizedModule":  # torch.compile's: the same f
        yield from _lines(next(module.children()), place, weights, above)
        return
    yield f"{place} module {type(module).__module__}.{type(module).__qualname__}"
    if isinstance(module, (fx.GraphModule, torch.jit.ScriptModule)):
        yield f"{place} code {module.code}"
    elif own := _own(module):
        yield f"{place} identity {_told(own(), place)}"
    else:
        attributes = {name: value for name, value in vars(module).items() if name not in _INTERNAL | _HOOKS}
        hooks = {name: list(vars(module)[name].values()) for name in _HOOKS if vars(module).get(name)}
        yield from _lines(attributes | hooks, place, True, above)
    for name, tensor in sorted([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]):
        yield from _array(tensor, f"{place}.{name}", weights)
    for name, child in module._modules.items():  # named_children() leaves out a part that is used twice
        if child is not None:
            yield from _lines(child, f"{place}.{name}", weights, above)


def _own(value: Any) -> Callable | None:
    """The method identity() of a value; a part of a network may bear that name, too."""
    own = getattr(value, "identity", None)
    return own if callable(own) and not isinstance(own, nn.Module) and not isinstance(value, type) else None


def _array(value: Tensor | np.ndarray | np.generic, place: str, weights: bool) -> Lines:
    if not isinstance(value, Tensor) and value.dtype.kind not in "biufc":  # of texts or objects
        yield f"{place} array {value.tolist()!r}"
        return
    tensor = value.detach().cpu() if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))
    yield f"{place} array {tuple(tensor.shape)} {tensor.dtype}"
    if weights:
        yield tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _named(function: Callable, place: str) -> str:
    """A function by its name, where the name says which it is: not a lambda, nothing made inside another function."""
    name = f"{getattr(function, '__module__', '')}.{function.__qualname__}"
    if "<" in name or getattr(function, "__closure__", None):
        raise ValueError(_refusal(place, function))
    return name


def _told(answer: object, place: str) -> str:
    try:
        return json.dumps(answer, sort_keys=True)
    except TypeError:
        raise ValueError(
            f"{place}: identity() must return numbers, texts, lists or dicts; got {answer!s:.80}"
        ) from None


def _refusal(place: str, value: object) -> str:
    return (
        f"{place} is a {type(value).__name__} ({value!s:.80}), which does not tell one f from another: a record "
        "could be taken for another's. Give its class, or the function, a method identity() that returns what tells it "
        "apart, such as a dict of names, versions and numbers"
    )
