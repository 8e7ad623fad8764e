"""Profiles: YAML files of parameters, and parameters from the command line."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import yaml

from lib.config.fields import as_number, refuse_unknown
from lib.config.notebooks import NOTEBOOKS, Common, field_names
from lib.machine.provenance import PROJECT_ROOT

PROFILES = PROJECT_ROOT / "profiles"


def parse(config: type[Common], name: str, text: str) -> Any:
    """The value of a parameter from the command line; the dataclass checks its type when it is built.

    Where the parameter is text it stays as written (a folder named 025). A number may be 1000, 1_000 or 1e-3;
    a list is YAML, "[0.25, 0.5]". ValueError for an unknown name or text that YAML cannot read.
    """
    refuse_unknown([name], field_names(config), "parameter")
    if typing.get_type_hints(config)[name] is str:
        return text
    number = as_number(text)
    if number is not None:
        return number
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} = {text!r}: not YAML; a list is written [0.25, 0.5]") from error
    if not isinstance(value, list):
        return value
    numbers = [as_number(item) if isinstance(item, str) else None for item in value]
    return [item if number is None else number for item, number in zip(value, numbers, strict=True)]


def load_profile(path_or_name: str | Path, notebook: str) -> dict[str, Any]:
    """The parameters that a profile sets for a notebook: its `common` section, then the notebook's own.

    A name means profiles/<name>.yaml of the project. FileNotFoundError where there is none; ValueError for an
    unknown section or parameter. The dataclass checks the values when it is built.
    """
    refuse_unknown([notebook], NOTEBOOKS, "notebook")
    path = profile_path(path_or_name)
    sections = read_sections(path)
    refuse_unknown(sections, ["common", *NOTEBOOKS], f"section of {path.name}")
    for section, values in sections.items():
        known = field_names(NOTEBOOKS.get(section, Common))
        refuse_unknown(values, known, f"parameter in {path.name}, section {section}")
    return sections.get("common", {}) | sections.get(notebook, {})


def profile_path(path_or_name: str | Path) -> Path:
    """The file of a profile. FileNotFoundError that lists the profiles where it does not exist."""
    path = Path(path_or_name)
    if path.suffix not in (".yaml", ".yml"):
        path = PROFILES / f"{path_or_name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PROFILES.glob("*.yaml")))
        raise FileNotFoundError(f"profile {str(path_or_name)!r}: no file {path}; the profiles are {known}")
    return path


def read_sections(path: Path) -> dict[str, dict[str, Any]]:
    """A profile's sections. ValueError where the file is not sections of `name: value`."""
    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"profile {path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(sections, dict) or not all(isinstance(part, dict) for part in sections.values()):
        raise ValueError(f"profile {path}: expected sections, such as `common:`, with lines `name: value`")
    return sections
