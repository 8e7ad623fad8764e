"""Whose code a module is, and what a function or a class of it names."""

import sys
from types import CodeType

_NOT_ONES_OWN = {"lib", "torch", *sys.stdlib_module_names}


def is_ones_own(module: str | None) -> bool:
    """Whether a module is the user's: a notebook, a script, a file neither installed nor Python's nor the kit's."""
    if module == "__main__" or str(module).partition(".")[0] in _NOT_ONES_OWN:
        return module == "__main__"
    file = getattr(sys.modules.get(str(module)), "__file__", None) or ""
    return bool(file) and "site-packages" not in file


def names_in(code: CodeType) -> set[str]:
    """Every name that a function looks up, its inner functions included."""
    inner = [names_in(part) for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*inner)


def slots_of(kind: type) -> list[str]:
    """The attributes that objects of a class, or of one above it, keep outside of their __dict__."""
    declared = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    names = [name for group in declared for name in ((group,) if isinstance(group, str) else tuple(group))]
    return [name for name in names if name not in ("__dict__", "__weakref__")]
