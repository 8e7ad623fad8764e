"""What an objective is: its fields as plain values, and the code that computes it as a hash."""

import ast
import dataclasses
import functools
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from lib.machine.code import is_ones_own, names_in
from lib.models.identity import identity

FOLLOWED = ("lib.training.objectives", "lib.attacks")  # rooms whose functions are part of an objective's code
CONTENT = (bool, int, float, str, list, tuple, dict, type(None), torch.Tensor, np.ndarray, np.generic, nn.Module)

_files: dict[str, str] = {}  # name of a module -> its code, as it was when a class in it was defined


def plain(value: Any, name: str) -> Any:
    """A field's value as JSON knows it: networks and arrays become hashes. ValueError for what cannot be told apart."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, nn.Module):
        return [identity(value), identity(value, weights=False)]  # its weights, and its code
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value, order="C")
        return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": hashlib.sha256(array).hexdigest()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{name}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    if callable(getattr(value, "identity", None)):
        return value.identity()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        said = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **plain(said, name)}
    if isinstance(getattr(value, "config", None), Mapping):  # a scheduler of diffusers; _ marks where it came from
        said = {key: item for key, item in value.config.items() if not key.startswith("_")}
        return {"class": type(value).__name__, **plain(said, name)}
    raise ValueError(f"{name} = {value!r} cannot be told apart from others, so weights could be taken for another's: "
                     "use numbers, texts, tensors, networks, or an object with a method identity()")  # fmt: skip


def note_code(cls: type) -> None:
    """Read the files behind `cls` now that it is defined: what is edited afterwards is not what runs here."""
    _files.pop(cls.__module__, None)  # defined again, perhaps after an edit
    _texts([base.__module__ for base in _bases(cls)])
    _texts(_followed(vars(sys.modules[cls.__module__]).values()) if cls.__module__ in sys.modules else [])


def code_hash(cls: type) -> str:
    """SHA-256 over the code of `cls`, its bases, and what they use of FOLLOWED; comments and docstrings do not count.

    Of a class in a file that is the whole file. Of one in a notebook it is its functions, with the functions and
    plain values of the notebook that they name. ValueError where the code cannot be read.
    """
    parts = set(_texts([base.__module__ for base in _bases(cls)]).values())
    for base in _bases(cls):
        if base.__module__ not in _files:
            parts |= set(_from_cells(base, set()))
    return hashlib.sha256(repr(sorted(parts)).encode()).hexdigest()


def _bases(cls: type) -> list[type]:
    return [base for base in cls.__mro__ if base.__module__.partition(".")[0] not in sys.stdlib_module_names]


def _texts(modules: list[str]) -> dict[str, str]:
    """The code of the modules that have a file, and of FOLLOWED what these have imported, by name."""
    todo, found = list(modules), {}
    while todo:
        name = todo.pop()
        module = sys.modules.get(name)
        file = str(getattr(module, "__file__", None))
        if name in found or not file.endswith(".py"):
            continue
        if name not in _files:
            _files[name] = _normal(Path(file).read_text())
        found[name] = _files[name]
        todo += _followed(vars(module).values())
    return found


def _followed(values: Iterable[Any]) -> list[str]:
    """The modules of FOLLOWED that these functions, classes and modules come from."""
    homes = (value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "") for value in values)
    return [home for home in homes if isinstance(home, str) and (home.startswith(FOLLOWED) or is_ones_own(home))]


def _from_cells(cls: type, seen: set[str]) -> Iterator[str]:
    """The functions and constants of a class that has no file, with what they name."""
    for name, value in vars(cls).items():
        for function in (value, getattr(value, "__func__", None), getattr(value, "fget", None)):
            if isinstance(function, FunctionType):
                yield from _from_function(function, f"{cls.__name__}.{name}", seen)
        if isinstance(value, CONTENT) and not name.startswith("__"):
            yield f"{name} = {plain(value, name)!r}"


def _from_function(function: FunctionType, name: str, seen: set[str]) -> Iterator[str]:
    try:
        yield _normal(inspect.getsource(function))
    except (OSError, TypeError):
        if function.__name__.startswith("__") and function.__name__ not in ("__call__", "__post_init__"):
            return  # written by dataclass, from the fields
        raise ValueError(f"the code of {name} cannot be read: define it in a file or in a notebook's cell") from None
    inside = dict(enumerate(function.__defaults__ or ())) | (function.__kwdefaults__ or {}) | _enclosed(function)
    for place, value in inside.items():
        yield from _from_value(f"{name}[{place}]", value, function, seen)
    for used in sorted(names_in(function.__code__) - seen):
        seen.add(used)
        value = function.__globals__.get(used)
        yield from _from_value(used, value, function, seen)
        yield from _texts(_followed([value])).values()


def _from_value(used: str, value: Any, function: FunctionType, seen: set[str]) -> Iterator[str]:
    """What a function's code means by a name: the code or the content of it; "" for what a library brings."""
    value = getattr(value, "__wrapped__", value)  # of a cache
    if isinstance(value, functools.partial):
        yield f"{used} = {plain([value.args, value.keywords], used)}"
        value = value.func
    if isinstance(value, FunctionType) and value.__module__ == function.__module__:
        yield from _from_function(value, used, seen)
    elif isinstance(value, type) and value.__module__ == function.__module__ and f"class {used}" not in seen:
        seen.add(f"class {used}")
        yield from _from_cells(value, seen)
    elif isinstance(value, CONTENT):
        yield f"{used} = {plain(value, used)!r}"


def _enclosed(function: FunctionType) -> dict[str, Any]:
    """What a function made inside another one keeps of it."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if name != "__class__"}


def _normal(source: str) -> str:
    """Code without comments, docstrings and layout."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:  # a lambda, whose source is the line around it
        return source
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
