"""What a parameter may be: the declaration of a dataclass field with its limits, and the checks that read them."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any

# The ranges that a field may ask for: name -> (what the message says, the test). NaN fails all four.
RANGES = {
    "min": ("at least", lambda value, limit: value >= limit),
    "max": ("at most", lambda value, limit: value <= limit),
    "above": ("greater than", lambda value, limit: value > limit),
    "below": ("less than", lambda value, limit: value < limit),
}


def parameter(default: Any, help: str, **limits: Any) -> Any:
    """A dataclass field with a help text and its limits: min, max, above, below, or a pattern for text."""
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def checked(field: dataclasses.Field, hint: Any, value: Any) -> Any:
    """`value` as the field keeps it. ValueError where its type or its range is wrong."""
    kind = item_type(hint)
    if kind is hint:
        return checked_item(field, kind, value, field.name)
    if not isinstance(value, (list, tuple)) or not value:
        example = list(field.default)
        raise ValueError(f"{field.name} = {value!r}: list of {kind.__name__} expected, such as {example}")
    return tuple(checked_item(field, kind, item, f"{field.name}[{i}]") for i, item in enumerate(value))


def item_type(hint: Any) -> type:
    """float for a field of type tuple[float, ...], and the type itself for any other."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint


def checked_item(field: dataclasses.Field, kind: type, value: Any, name: str) -> Any:
    """One number, text or truth value, checked. The name is as a message shows it: alpha, or sigmas[2]."""
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:  # not isinstance: a bool is an int
        expected = f"{kind.__name__} expected, not {type(value).__name__}"
        raise ValueError(f"{name} = {value!r}: {expected}{hint_for(kind, value)}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{name} = {value!r}: a finite number is expected")
    rules = field.metadata
    for rule, (words, holds) in RANGES.items():
        if rule in rules and not holds(value, rules[rule]):
            raise ValueError(f"{name} = {value!r}: must be {words} {rules[rule]} ({rules['help']})")
    if kind is str and not re.fullmatch(rules.get("pattern", r".*\S.*"), value):
        raise ValueError(f"{name} = {value!r}: expected {rules.get('example', rules['help'])}")
    return value


def hint_for(kind: type, value: Any) -> str:
    """What to write instead of a value of the wrong type, where that can be told."""
    number = as_number(value) if isinstance(value, str) else None
    if number is not None and kind in (int, float):
        return f"; write {number!r} without quotes (YAML 1.1 takes 1e-3 for text, and 1.0e-3 for a number)"
    if kind is int and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}"
    return ""


def as_number(text: str) -> int | float | None:
    """The int or float that `text` spells in Python (1_000, 1e-3), or None."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def refuse_unknown(names: Iterable[str], known: Iterable[str] | Mapping[str, Any], what: str) -> None:
    """ValueError for the first name that is not known, with the name that was probably meant."""
    known = list(known)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise ValueError(f"unknown {what}: {name!r}; {advice}")
