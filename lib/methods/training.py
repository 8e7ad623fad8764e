"""The training methods of the lecture's table: from their words to weights, alone and as ensembles."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from lib.config import CertifiedTraining
from lib.config.fields import refuse_unknown
from lib.datasets import Data, stack, training_images
from lib.methods.cohen2019 import trained_classifier
from lib.models import build_classifier
from lib.models.bounded import bounded_first_layer
from lib.models.ensembles import Ensemble
from lib.sampling import class_counts
from lib.training import objectives
from lib.training.objectives import Objective
from lib.words import LARGEST_KEY, METHOD

TEACHER = 0.25  # the noise of CAT-RS's teacher, whatever sigma is


@dataclass(frozen=True)
class Method:
    """A row of the comparison: how it is called, who proposed it, and what it minimises."""

    name: str
    reference: str
    objective: type[Objective]


METHODS: dict[str, Method] = {
    "gaussian": Method("Gaussian", "Cohen et al. 2019", objectives.Gaussian),
    "copies": Method("Gaussian copies", "control", objectives.GaussianCopies),
    "stability": Method("Stability training", "Li et al. 2019", objectives.StabilityTraining),
    "smoothadv": Method("SmoothAdv", "Salman et al. 2019", objectives.SmoothAdv),
    "smoothadv-ddn": Method("SmoothAdv (DDN)", "Salman et al. 2019", objectives.SmoothAdvDDN),
    "consistency": Method("Consistency", "Jeong & Shin 2020", objectives.Consistency),
    "macer": Method("MACER", "Zhai et al. 2020", objectives.MACER),
    "smoothmix": Method("SmoothMix", "Jeong et al. 2021", objectives.SmoothMix),
    "cat-rs": Method("CAT-RS", "Jeong et al. 2023", objectives.CATRS),
    "drt": Method("DRT", "Yang et al. 2022", objectives.DRT),
    "pixeldp": Method("PixelDP", "Lecuyer et al. 2019", objectives.PixelDP),
}


def training_method(words: str) -> tuple[Method, dict[str, Any]]:
    """What words such as "smoothadv epsilon 0.5 steps 2" say: the method, and numbers of its objective.

    `votes` of CAT-RS is how often its teacher votes on a training image (200 unless it says otherwise; the paper:
    10,000). ValueError, with what to write instead, for an unknown name or field, or a value that is no number.
    """
    said = re.fullmatch(METHOD["pattern"], words)
    if not said:
        raise ValueError(f"{words!r}: expected {METHOD['example']}")
    refuse_unknown([said["name"]], METHODS, "method")
    method, kinds = METHODS[said["name"]], number_fields(said["name"])
    numbers: dict[str, Any] = {}
    pairs = said["fields"].split()
    for name, text in zip(pairs[::2], pairs[1::2], strict=True):
        refuse_unknown([name], kinds, f"number of {said['name']}")
        numbers[name] = _number(words, name, text, kinds[name])
    return method, numbers


def number_fields(name: str) -> dict[str, type]:
    """The numbers that a method's words may set, with their types; sigma is the notebook's."""
    fields = dataclasses.fields(METHODS[name].objective)  # type: ignore[arg-type]  # every objective is a dataclass
    kinds = {field.name: field.type for field in fields if field.type in (int, float, bool) and field.name != "sigma"}
    return kinds | ({"votes": int} if name == "cat-rs" else {})


def _number(words: str, name: str, text: str, kind: type) -> int | float | bool:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{words!r}: {name} {text} must be true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{words!r}: {name} {text} must be {what}") from None


def method_names(cfg: CertifiedTraining) -> dict[str, str]:
    """What tables call `cfg.recipes` -> their words; it reads them all, so that a wrong word stops before a training.

    A method that is there twice is told apart by its words. ValueError for words that no method has, or where a method
    of an ensemble or of a split network stands among those of single classifiers.
    """
    split = [words for words in cfg.recipes if training_method(words)[0].name in ("DRT", "PixelDP")]
    if split:
        raise ValueError(f"recipes = {split[0]!r}: it has a parameter of its own, {split[0].split()[0]}")
    for parameter, name in (("drt", "DRT"), ("pixeldp", "PixelDP")):
        words = getattr(cfg, parameter)
        if training_method(words)[0].name != name:
            raise ValueError(f"{parameter} = {words!r}: write {parameter}, and its numbers")
    for words in (*cfg.recipes, cfg.drt, cfg.pixeldp):
        _checked_objective(words, cfg.sigma)
    names = [training_method(words)[0].name for words in cfg.recipes]
    named = zip(names, cfg.recipes, strict=True)
    return {name if names.count(name) == 1 else f"{name} ({words})": words for name, words in named}


def _checked_objective(words: str, sigma: float) -> None:
    """ValueError where the numbers are out of range, before anything is trained."""
    method, numbers = training_method(words)
    tables = {"classes": torch.zeros(1).long(), "soft": torch.ones(1, 1)} if method.name == "CAT-RS" else {}
    try:
        method.objective(sigma, **tables, **{name: number for name, number in numbers.items() if name != "votes"})
    except TypeError as error:
        raise ValueError(f"{words!r}: {str(error).split('__init__() ')[-1]}") from None


def method_classifier(cfg: CertifiedTraining, data: Data, words: str, seed: int | None = None) -> nn.Module:
    """f, trained by the method that the words name at level `cfg.sigma`, with `cfg.seed` or another one."""
    cfg = cfg if seed is None else replace(cfg, seed=seed)
    method, numbers = training_method(words)
    votes = numbers.pop("votes", 200)
    told = f"{words}, sigma = {cfg.sigma}, seed = {cfg.seed}"
    if method.objective is objectives.CATRS:
        images, tables = _soft_labels(cfg, data, votes)
        return trained_classifier(cfg, data, objectives.CATRS(cfg.sigma, **tables, **numbers), told, dataset=images)
    objective = method.objective(cfg.sigma, **numbers)  # type: ignore[call-arg]
    builds = {"DRT": lambda: _untrained_ensemble(cfg, data), "PixelDP": lambda: _untrained_split(cfg, data)}
    return trained_classifier(cfg, data, objective, told, build=builds.get(method.name))


def _soft_labels(cfg: CertifiedTraining, data: Data, votes: int) -> tuple[Dataset, Mapping[str, torch.Tensor]]:
    """CAT-RS's training set, whose labels are the images' numbers, and what it looks up by them."""
    teacher = trained_classifier(cfg, data, objectives.Gaussian(TEACHER), f"teacher, sigma = {TEACHER}")
    dataset = training_images(data)
    images, classes = stack(dataset, range(len(dataset)))
    counts = class_counts(
        teacher, images.to(cfg.device), None, votes, sigma=TEACHER, num_classes=data.num_classes, seed=cfg.seed,
        batch_size=cfg.batch_size,
    )  # fmt: skip
    soft = torch.as_tensor(counts).float().cpu() / votes
    return TensorDataset(images, torch.arange(len(images))), {"classes": classes, "soft": soft}


def _untrained_ensemble(cfg: CertifiedTraining, data: Data) -> nn.Module:
    return Ensemble([build_classifier(cfg.arch, data) for _ in range(cfg.members)])


def _untrained_split(cfg: CertifiedTraining, data: Data) -> nn.Module:
    return bounded_first_layer(build_classifier(cfg.arch, data, normalization="none"))


def boosted_members(cfg: CertifiedTraining, data: Data, words: str) -> list[nn.Module]:
    """The members of Horvath et al. 2022: one recipe, `cfg.members` seeds from `cfg.seed` on."""
    seeds = [(cfg.seed + i) % (LARGEST_KEY + 1) for i in range(cfg.members)]
    return [method_classifier(cfg, data, words, seed) for seed in seeds]
