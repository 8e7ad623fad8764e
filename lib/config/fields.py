"""What a parameter may be: the declaration of a dataclass field with its limits, and the checks that read them."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# The ranges that a field may ask for: name -> (what the message says, the test). NaN fails all four.
RANGES = {
    "min": ("at least", lambda value, limit: value >= limit),
    "max": ("at most", lambda value, limit: value <= limit),
    "above": ("greater than", lambda value, limit: value > limit),
    "below": ("less than", lambda value, limit: value < limit),
}
LONGEST = 80  # characters of a value in a message: a variable of the same name may hold a whole batch of images


def parameter(default: Any, help: str, **limits: Any) -> Any:
    """A dataclass field with a help text and its limits.

    Of a number: min, max, above, below; and a `word` that may stand in its place, such as "auto". Of text: a pattern
    with an example, or choices (names), beside which `prefixes` ("timm:") and, with files=True, names of files are
    taken. Of a list: the same for each item, and ascending=True or distinct=True for the whole.
    """
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def checked(field: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    """`value` as the field keeps it. ValueError where its type or its range is wrong."""
    kind = item_type(hint)
    if isinstance(value, str) and value == field.metadata.get("word"):
        return value
    if typing.get_origin(hint) is not tuple:
        return checked_item(field, kind, value, field.name)
    if not isinstance(value, (list, tuple)) or not value:
        example = list(typing.cast(tuple, field.default))
        raise ValueError(f"{field.name} = {short(value)}: list of {kind.__name__} expected, such as {example}")
    items = tuple(checked_item(field, kind, item, f"{field.name}[{i}]") for i, item in enumerate(value))
    check_order(field, items)
    return items


def check_order(field: dataclasses.Field[Any], items: tuple[Any, ...]) -> None:
    """ValueError, with the list to write, where items must ascend and do not, or where one is there twice."""
    rules = field.metadata
    right = sorted(set(items)) if rules.get("ascending") else list(dict.fromkeys(items))
    if list(items) != right and (rules.get("ascending") or rules.get("distinct")):
        fault = "must ascend" if len(right) == len(items) else "must be there once each"
        raise ValueError(f"{field.name} = {short(list(items))}: they {fault}; write {right}")


def item_type(hint: Any) -> type:
    """float for a field of type tuple[float, ...], int for one of int | str, and the type itself for any other."""
    return (*typing.get_args(hint), hint)[0]


def checked_item(field: dataclasses.Field[Any], kind: type, value: Any, name: str) -> Any:
    """One number, text or truth value, checked. The name is as a message shows it: alpha, or sigmas[2]."""
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:  # not isinstance: a bool is an int
        word = f" or {field.metadata['word']!r}" if "word" in field.metadata else ""
        expected = f"{kind.__name__}{word} expected, not {type(value).__name__}"
        raise ValueError(f"{name} = {short(value)}: {expected}{hint_for(kind, value)}")
    if isinstance(value, int) and abs(value) >= 2**53:  # where floats, in which it is computed, leave numbers out
        raise ValueError(f"{name} = {short(value)}: a number below 2**53 is expected")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} = {value!r}: a finite number is expected")
    rules = field.metadata
    for rule, (words, holds) in RANGES.items():
        if rule in rules and not holds(value, rules[rule]):
            raise ValueError(f"{name} = {short(value)}: must be {words} {rules[rule]} ({rules['help']})")
    if isinstance(value, str):
        check_text(rules, value, name)
    return value


def check_text(rules: Mapping[str, Any], text: str, name: str) -> None:
    """ValueError where text is none of the choices, or does not follow the pattern; without either it is not blank."""
    if "choices" in rules:
        library = text.startswith(tuple(rules.get("prefixes", ())))
        if text not in rules["choices"] and not library and not (rules.get("files") and Path(text).suffix):
            raise ValueError(f"{name} = {short(text)}: {advice(text, rules['choices'])}")
    elif not re.fullmatch(rules.get("pattern", r".*\S.*"), text):
        raise ValueError(f"{name} = {short(text)}: expected {rules.get('example', rules['help'])}")


def hint_for(kind: type, value: Any) -> str:
    """What to write instead of a value of the wrong type, where that can be told."""
    number = as_number(value) if isinstance(value, str) else value
    if kind is int and isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int if kind is int else (int, float)):
        return ""
    why = " without quotes (YAML 1.1 takes 1e-3 for text, and 1.0e-3 for a number)" if isinstance(value, str) else ""
    return f"; write {number!r}{why}" if kind in (int, float) else ""


def as_number(text: str) -> int | float | None:
    """The int or float that `text` spells in Python (1_000, 1e-3), or None."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def short(value: Any) -> str:
    """repr(value), its middle left out where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 20]} … {text[-17:]}"


def refuse_unknown(names: Iterable[str], known: Iterable[str] | Mapping[str, Any], what: str) -> None:
    """ValueError for the first name that is not known, with the name that was probably meant."""
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what}: {short(name)}; {advice(name, known)}")


def advice(name: object, known: Iterable[str]) -> str:
    """The name that was probably meant, or all that are known."""
    known = [one for one in known if one]
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
