"""Profiles: YAML files of parameters, and parameters from the command line."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import yaml

from lib.config.fields import as_number, refuse_unknown, short
from lib.config.notebooks import NOTEBOOKS, Common, DenoisedSmoothing, DiffusionDenoising, Run, field_names
from lib.config.strict_yaml import StrictLoader, read_yaml
from lib.machine.provenance import PROJECT_ROOT

PROFILES = PROJECT_ROOT / "profiles"


def parse(config: type[Run], name: str, text: str) -> Any:
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
        value = yaml.load(text, StrictLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} = {short(text)}: not YAML; a list is written [0.25, 0.5]") from error
    except ValueError as error:
        raise ValueError(f"{name} = {short(text)}: {error}") from error
    if not isinstance(value, list):
        return value
    numbers = [as_number(item) if isinstance(item, str) else None for item in value]
    return [item if number is None else number for item, number in zip(value, numbers, strict=True)]


def load_profile(path_or_name: str | Path, notebook: str) -> dict[str, Any]:
    """The parameters that a profile sets for a notebook: its `common` section as far as it has them, then its own.

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
    mine = field_names(NOTEBOOKS[notebook])
    common = {name: value for name, value in sections.get("common", {}).items() if name in mine}
    return common | sections.get(notebook, {})


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
    sections = read_yaml(path)
    if not isinstance(sections, dict) or not all(isinstance(part, dict) for part in sections.values()):
        raise ValueError(f"{path}: expected sections, such as `common:`, with lines `name: value`")
    return sections


def baseline_parameters(config: DiffusionDenoising) -> DenoisedSmoothing:
    """Notebook 02's parameters in the profile `baselines`, for this run's data and folders: it shares weights.

    FileNotFoundError where there is no such profile, ValueError where it does not fit.
    """
    mine = {name: getattr(config, name) for name in field_names(Common)}
    profile = load_profile(config.baselines, "02_denoised_smoothing") if config.baselines else {}
    if config.classifier:  # the other methods defend this run's classifier, too
        mine |= {"classifier": config.classifier, "normalization": config.normalization}
    return DenoisedSmoothing(**(profile | mine))
