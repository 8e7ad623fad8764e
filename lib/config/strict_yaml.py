"""YAML read strictly: what it would settle in silence (a key twice, 010 for 8) is refused with its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml


class StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which keeps the last of two equal keys and reads 010 as 8 and 1:30 as 90."""


def mapping(loader: StrictLoader, node: yaml.MappingNode) -> Any:
    """A mapping each of whose keys is there once. Keys that a merge (<<) brings may be set again."""
    lines: dict[str, list[int]] = {}
    for key, _ in node.value:
        lines.setdefault(str(key.value), []).append(key.start_mark.line + 1)
    for name, places in lines.items():
        if len(places) > 1:
            where = " and ".join(map(str, places))
            raise ValueError(f"{name!r} is there twice, in lines {where}: keep one")
    return loader.construct_yaml_map(node)


def number(loader: StrictLoader, node: yaml.ScalarNode) -> int | float:
    """A number that is what it looks like."""
    if re.fullmatch(r"[-+]?0[\d_]+|.*:.*", node.value):
        raise ValueError(f"line {node.start_mark.line + 1}: {node.value} is another number in YAML; write it plainly")
    return loader.construct_yaml_int(node) if node.tag.endswith("int") else loader.construct_yaml_float(node)


StrictLoader.add_constructor("tag:yaml.org,2002:map", mapping)
for kind in ("int", "float"):
    StrictLoader.add_constructor(f"tag:yaml.org,2002:{kind}", number)


def read_yaml(path: str | Path) -> Any:
    """What a YAML file says. ValueError, with the file and the line, where it says it in two ways or is no YAML."""
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), StrictLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
