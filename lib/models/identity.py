"""What a classifier is, as a hash: its classes, its weights, and every attribute that may decide an answer.

A name is not enough: two networks of equal weights differ by a temperature, a mean, an address. What cannot be told
apart by looking (a lambda, an open connection) brings a method `identity()` of its own, or is refused.
"""

import enum
import functools
import hashlib
import inspect
import json
import logging
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from lib.machine.code import is_ones_own, slots_of

# What torch keeps in every module; of these only hooks that change an answer count. `training` is checked elsewhere.
_HOOKS = {"_forward_hooks", "_forward_pre_hooks"}
_INTERNAL = set(vars(nn.Module())) - _HOOKS | {"_is_hf_initialized", "_compiled_call_impl", "_is_torch_compile"}
# Where a configuration came from, not what it says; one of them is a list in an order of each process's own.
_PROVENANCE = {"_diffusers_version", "_name_or_path", "_use_default_values", "_FrozenDict__frozen"}
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.layout, torch.memory_format)


def identity(module: nn.Module, weights: bool = True) -> str:
    """SHA-256 (64 hex digits) of what decides the answers of `module`.

    That is, for it and all modules inside: class, parameters and buffers (names, shapes, types, bytes), and plain
    attributes: numbers, texts, arrays, functions by name and defaults, containers and objects of these. A module or
    object with a method `identity()` is what that returns (JSON values), besides its weights. Of the user's own classes
    and functions the code counts, too, as this version of Python has it, with the numbers and texts that it names and
    what a class holds. `weights=False` leaves out the bytes: the structure alone, with the code of the kit's networks.

    Not seen: the code of packages (their versions are in the manifest), a file that `forward` reads. An attribute that
    `forward` changes makes it another f. ValueError, with the place and what to do, for what cannot be told apart.
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
        yield from _additions(value, place, weights, above)
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
        keys = sorted(value.keys() - _PROVENANCE, key=repr)
        order = [key for key in value if key not in _PROVENANCE]
        if type(value) in (dict, OrderedDict) and order != keys:
            yield f"{place} order {order!r}"
        for key in keys:
            yield from _lines(value[key], f"{place}.{key}", weights, above)
        yield from _additions(value, place, weights, above)
    elif isinstance(value, (list, tuple, deque)):
        yield f"{place} sequence {len(value)}"
        for i, item in enumerate(value):
            yield from _lines(item, f"{place}[{i}]", weights, above)
        yield from _additions(value, place, weights, above)
    elif isinstance(value, (set, frozenset)):
        yield from _lines(sorted(value, key=repr), f"{place} set", weights, above)
        yield from _additions(value, place, weights, above)
    elif isinstance(value, functools.partial):
        yield from _lines(_sorted({"f": value.func, "args": value.args, **value.keywords}), place, weights, above)
    elif callable(value) and hasattr(value, "__qualname__"):
        yield from _function(value, place, weights, above)
    elif _has_state(value):
        yield f"{place} object {type(value).__module__}.{type(value).__qualname__}"
        yield from _lines(_sorted(_state(value)), place, weights, above)
        yield from _class(type(value), place, weights, above)
    else:
        raise ValueError(_refusal(place, value))


def _function(value: Any, place: str, weights: bool, above: set[int]) -> Lines:
    """A function by its name and defaults, a method with its object. ValueError where a name is not enough."""
    owner = getattr(value, "__self__", None)
    if isinstance(value, types.MethodType):
        if getattr(type(owner), value.__func__.__name__, None) is not value.__func__:  # not its class's own
            _named(value.__func__, place)
        yield f"{place} method {value.__func__.__qualname__}"
        yield from _lines(owner, place, weights, above)
        value = value.__func__
    elif owner is None or isinstance(owner, types.ModuleType):
        yield f"{place} function {_named(value, place)}"
    else:  # a method of a type that is written in C, such as a tensor's
        yield f"{place} method {value.__qualname__}"
        yield from _lines(owner, place, weights, above)
    given = [getattr(value, name, None) for name in ("__defaults__", "__kwdefaults__")]
    if any(given):
        yield from _lines(given, f"{place} defaults", weights, above)
    if is_ones_own(getattr(value, "__module__", None)) and isinstance(value, types.FunctionType):
        yield f"{place} code {_code(inspect.unwrap(value))}"


def _class(kind: type, place: str, weights: bool, above: set[int]) -> Lines:
    """What a class of the user's own brings to its objects: its functions' code, and its values.

    Where weights do not count, as for a training, that of the kit's classes counts as well.
    """
    for base in kind.__mro__:
        if is_ones_own(base.__module__) or (not weights and base.__module__.startswith("lib.")):
            for name, value in sorted(vars(base).items()):
                value = inspect.unwrap(getattr(value, "__func__", getattr(value, "fget", value)))
                if isinstance(value, types.FunctionType):
                    yield f"{place} code {base.__qualname__}.{name} {_code(value)}"
                    cells = zip(value.__code__.co_freevars, value.__closure__ or ())
                    kept = {free: cell.cell_contents for free, cell in cells if free != "__class__"}
                    yield from _lines(kept, f"{place} {base.__qualname__}.{name} keeps", weights, above)
                elif not name.startswith("__") and not callable(value) and not hasattr(value, "__get__"):
                    yield from _lines(value, f"{place} {base.__qualname__}.{name}", weights, above)


def _code(function: types.FunctionType) -> str:
    """A hash of what a function does: instructions, names and constants, of inner functions and of those it names."""
    told: list[Any] = []
    seen: set[str] = set()
    todo: list[Any] = [function]
    while todo:
        code = todo.pop(0)
        if isinstance(code, types.FunctionType):
            documented, known, code = code.__doc__ is not None, code.__globals__, code.__code__
        constants = (None, *code.co_consts[1:]) if documented else code.co_consts
        told += [code.co_code.hex(), code.co_names, code.co_varnames]
        told += [_constant(one) for one in constants if not isinstance(one, types.CodeType)]
        for name in code.co_names:
            value = known.get(name)
            if isinstance(value, _PLAIN) and name in known:
                told.append((name, repr(value)))
            elif isinstance(value, types.FunctionType) and is_ones_own(value.__module__) and name not in seen:
                seen.add(name)
                todo.append(value)
        inner = [one for one in constants if isinstance(one, types.CodeType)]
        documented, todo = False, inner + todo  # names of inner functions are looked up in the same globals
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _constant(value: Any) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _additions(value: Any, place: str, weights: bool, above: set[int]) -> Lines:
    """Attributes that a number, a text or a container carries besides its content."""
    repeated = {*value, *_PROVENANCE} if isinstance(value, Mapping) else set()  # diffusers keeps its keys as attributes
    added = {name: item for name, item in getattr(value, "__dict__", {}).items() if name not in repeated}
    if added:
        yield f"{place} class {type(value).__module__}.{type(value).__qualname__}"
        yield from _lines(_sorted(added), place, weights, above)


def _state(value: Any) -> dict[str, Any]:
    """The attributes of an object, those in slots of its classes included."""
    slots = {name: getattr(value, name) for name in slots_of(type(value)) if hasattr(value, name)}
    return slots | getattr(value, "__dict__", {})


def _has_state(value: Any) -> bool:
    """Whether an object is what its attributes are: not a generator, an open file or another object written in C."""
    if isinstance(value, torch.Generator):
        return False
    return hasattr(value, "__dict__") or any("__slots__" in vars(kind) for kind in type(value).__mro__)


def _sorted(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes in an order of their own: when they were set decides nothing."""
    return dict(sorted(attributes.items(), key=lambda item: repr(item[0])))


def _module(module: nn.Module, place: str, weights: bool, above: set[int]) -> Lines:
    if isinstance(module, nn.DataParallel) or type(module).__name__ == "OptimizedModule":  # torch.compile's: the same f
        yield from _lines(next(module.children()), place, weights, above)
        return
    yield f"{place} module {type(module).__module__}.{type(module).__qualname__}"
    if isinstance(module, (fx.GraphModule, torch.jit.ScriptModule)):
        yield f"{place} code {module.code}"
        if isinstance(module, torch.jit.ScriptModule):  # a frozen one has its weights there
            yield from _lines(_constants(module), f"{place} constants", weights, above)
    elif own := _own(module):
        yield f"{place} identity {_told(own(), place)}"
    else:
        attributes = {name: value for name, value in vars(module).items() if name not in _INTERNAL | _HOOKS}
        hooks = {name: list(vars(module)[name].values()) for name in _HOOKS if vars(module).get(name)}
        yield from _lines(_sorted(attributes | hooks), place, True, above)
    yield from _class(type(module), place, weights, above)
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
    if tensor.layout != torch.strided or tensor.is_quantized:
        tensor = tensor.dequantize() if tensor.is_quantized else tensor.to_dense()
    if weights:
        yield tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _constants(module: torch.jit.ScriptModule) -> dict[str, Any]:
    """The tensors that TorchScript keeps beside the code of `forward`; none where it has no such method."""
    try:
        return module.code_with_constants[1].const_mapping
    except (RuntimeError, AttributeError):
        return {}


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
