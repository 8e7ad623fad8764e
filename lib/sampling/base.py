"""What the base classifier f must be: in eval mode throughout, with finite weights, one row of logits an image."""

import functools
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from lib.machine.code import is_ones_own, names_in, slots_of

_WRAP = """\
class Logits(torch.nn.Module):
    def __init__(self, net): super().__init__(); self.net = net
    def forward(self, images): return self.net(images){part}"""


class Function(nn.Module):
    """A function of images as a base classifier. For a record it needs an `identity()` that tells it apart."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)

    def identity(self) -> object:
        """What the function says of itself. ValueError where it says nothing: its name is not enough."""
        own = getattr(self.function, "identity", None)
        if not callable(own):
            raise ValueError(
                f"base is {self.function!r:.80}, which cannot be told from another function: pass an nn.Module or give "
                "it an attribute identity, a function that returns what tells it apart, such as its weights' hash"
            )
        return own()


def as_module(base: nn.Module | Callable[[Tensor], Tensor]) -> nn.Module:
    """`base`, or the function as a module. ValueError where it is neither."""
    if isinstance(base, nn.Module):
        return base
    if not callable(base) or isinstance(base, type):
        raise ValueError(f"base must be an nn.Module or a function, images -> logits; got {base!r:.80}")
    return Function(base)


def check_module(base: nn.Module) -> None:
    """ValueError for a module in training mode or a weight that is not finite, anywhere inside `base`.

    Parts in plain lists, dicts, attributes and in what the user's own functions name are found, too. Dropout or noise
    that `forward` draws by itself cannot be seen: f must give the same answer twice.
    """
    for place, module in modules_inside(base):
        name = f"{place or 'base'} ({type(module).__name__})"
        if getattr(module, "training", False):  # a frozen TorchScript module has no such attribute
            raise ValueError(f"{name} is in training mode: call .eval() on it first, or batches change its answers")
        for key, weight in module.named_parameters(recurse=False):
            if not weight.is_meta and not weight.isfinite().all():
                bad = weight[~weight.isfinite()].flatten()
                raise ValueError(
                    f"weight {key} of {name} is not finite: {len(bad)} of {weight.numel()}, such as {bad[0]}"
                )


def check_answers(logits: object, batch: Tensor, num_classes: int) -> None:
    """ValueError unless `logits` is a float tensor (len(batch), num_classes)."""
    if not isinstance(logits, Tensor):
        part = ".logits" if hasattr(logits, "logits") else "['logits']" if isinstance(logits, Mapping) else "[0]"
        first = logits[0] if isinstance(logits, (list, tuple)) and logits else logits
        remedy = "Return a tensor, such as torch.as_tensor(...)"
        if part != "[0]" or isinstance(first, Tensor):
            remedy = f"Wrap it:\n{_WRAP.format(part=part)}"
        raise ValueError(f"base must return a tensor of logits; got a {type(logits).__name__}. {remedy}")
    if logits.shape != (len(batch), num_classes):
        raise ValueError(
            f"base must return logits ({len(batch)}, {num_classes}), a row an image, for num_classes = {num_classes}; "
            f"got {tuple(logits.shape)}"
        )
    if not logits.is_floating_point():
        raise ValueError(f"base must return float logits; got {logits.dtype}")


def other_precision(base: nn.Module, images: Tensor) -> str:
    """What to write where weights have another precision than the images; "" where they have the same."""
    found = {weight.dtype for weight in base.parameters() if weight.is_floating_point()} - {images.dtype}
    if not found:
        return ""
    return (
        f"the weights of base are {sorted(map(str, found))[0]}, the images {images.dtype}: keep the weights in float32 "
        '(base.float()) and compute in half precision by Computed(base, "bfloat16") of lib.models.compute'
    )


def modules_inside(base: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(place, module) of all modules that `base` can reach: registered, or in its attributes and containers."""
    seen: set[int] = set()
    todo: list[tuple[str, Any]] = [("", base)]
    while todo:
        place, value = todo.pop()
        if id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, nn.Module):
                yield place, value
            todo += [(f"{place}.{name}".strip("."), item) for name, item in _inside(value).items() if item is not None]


_TORCHS_OWN = set(vars(nn.Module()))
_CONTAINERS = (list, tuple, set, frozenset, deque)


def _inside(value: Any) -> dict[str, Any]:
    if isinstance(value, nn.Module):
        parts = dict(value._modules.items())  # TorchScript has a dict of its own
        own = {name: item for name, item in vars(value).items() if name not in _TORCHS_OWN}
        return _of_class(value) | parts | own
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, _CONTAINERS):
        return {str(i): item for i, item in enumerate(value)}
    if isinstance(value, types.FunctionType):
        return _of_function(value)
    if isinstance(value, types.MethodType):
        return {"__self__": value.__self__, "__func__": value.__func__}
    if isinstance(value, functools.partial):
        return {"func": value.func, "args": value.args, **value.keywords}
    if isinstance(value, (type, types.ModuleType, Tensor, str, bytes, int, float)):
        return {}
    slots = {name: getattr(value, name) for name in slots_of(type(value)) if hasattr(value, name)}
    return _of_class(value) | slots | getattr(value, "__dict__", {})


def _of_function(value: types.FunctionType) -> dict[str, Any]:
    """What a function closes over, its defaults, and what one of the user's own names of its module."""
    cells = zip(value.__code__.co_freevars, value.__closure__ or ())
    inside = {name: cell.cell_contents for name, cell in cells if _filled(cell)}
    inside |= {str(i): item for i, item in enumerate(value.__defaults__ or ())} | (value.__kwdefaults__ or {})
    if not is_ones_own(value.__module__):
        return inside
    return {name: value.__globals__[name] for name in names_in(value.__code__) if name in value.__globals__} | inside


def _of_class(value: object) -> dict[str, Any]:
    """What a class of the user's own holds: its values, and the functions that an answer takes."""
    held: dict[str, Any] = {}
    for kind in reversed(type(value).__mro__):
        held |= dict(vars(kind)) if is_ones_own(kind.__module__) else {}
    functions = {name: item for name, item in held.items() if isinstance(item, types.FunctionType)}
    todo, taken = ["forward", "__call__"], {}
    while todo:
        if (name := todo.pop()) in functions:
            taken[name] = functions.pop(name)
            todo += names_in(taken[name].__code__)
    other = (types.FunctionType, type, property, classmethod, staticmethod)
    return {name: item for name, item in held.items() if name[:2] != "__" and not isinstance(item, other)} | taken


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # not yet assigned
        return False
