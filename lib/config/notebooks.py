"""The parameters of the notebooks: one frozen dataclass a notebook, checked when it is built.

A parameter is declared here with its type, its default, a help text and its range. The `parameters` cell of
the notebook and `profiles/digits.yaml` repeat the defaults, and a test holds the three equal. A new notebook
needs one dataclass below and one entry in NOTEBOOKS.
"""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.config import names
from lib.config.fields import checked, parameter, refuse_unknown, short
from lib.machine.provenance import PROJECT_ROOT
from lib.words import AUTO, COMPUTE, FILE, LARGEST_KEY, METHOD, STOP, TRAINING

# Limits that several parameters share: a network by its name, and the file of one.
CLASSIFIERS = names.of_any(names.CLASSIFIERS)
NETWORK: dict[str, Any] = {"choices": CLASSIFIERS, "prefixes": names.LIBRARIES}
TRAINED: dict[str, Any] = {"choices": ("", *CLASSIFIERS), "prefixes": names.LIBRARIES, "files": True}
BATCH: dict[str, Any] = {"min": 1, "word": AUTO}
LEVELS: dict[str, Any] = {"min": 0, "max": 65_535}
FIRST_LAYER: dict[str, Any] = {"choices": ("", *names.NORMALIZATIONS)}


def kit_root() -> Path:
    """The folder that `data_dir` and `run_dir` start from: $KIT_ROOT, else the project's root."""
    return Path(os.environ.get("KIT_ROOT") or PROJECT_ROOT)


def file_at(path: str, sigma: float) -> Path:
    """The file that a parameter names for a noise level: {sigma} becomes 0.5, {sigma:.2f} 0.50; from the kit's root."""
    return kit_root() / Path(path.format(sigma=sigma)).expanduser()


@dataclass(frozen=True)
class Run:
    """What every notebook takes. The defaults are the digits profile: a CPU and a few minutes.

    Building one checks every value: ValueError names the parameter, its value and what would be right.
    An int is taken where a float is expected, and a list is kept as a tuple.
    """

    dataset: str = parameter(
        "digits", "data set: digits, cifar10, imagenet, or a folder of images by class", choices=names.DATASETS
    )
    data_dir: str = parameter("data", "folder of the data sets; a relative one starts at the project's root")
    run_dir: str = parameter("runs/digits", "folder of everything that the run writes")
    device: str = parameter("cpu", "where tensors live", pattern=r"cpu|mps|cuda(:\d+)?", example="cpu, mps, cuda:0")
    seed: int = parameter(0, "seed of training and of the noise", min=0, max=LARGEST_KEY)
    skip: int = parameter(1, "take every skip-th test image", min=1)
    images: int = parameter(500, "take at most so many test images", min=1)
    compute: str = parameter("float32, channels-last", "how networks are computed: lib/models/compute.py", **COMPUTE)

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = checked(field, hints[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)  # the dataclass is frozen
            if field.metadata.get("pattern") == TRAINING["pattern"]:
                check_turn(field.name, (value,) if isinstance(value, str) else value)

    @classmethod
    def of(cls, variables: Mapping[str, Any]) -> typing.Self:
        """The parameters among a notebook's variables: `cfg = RandomizedSmoothing.of(globals())`.

        ValueError where one is missing: the parameters cell was not run, or has lost a line. ValueError, too, where
        that cell sets a name that is no parameter: it would be left aside in silence.
        """
        missing = [name for name in field_names(cls) if name not in variables]
        if missing:
            raise ValueError(f"no variable {missing[0]!r}; run the cell tagged `parameters`, which sets it")
        refuse_unknown(names_set_beside(field_names(cls), variables.get("In", [])), field_names(cls), "parameter")
        return cls(**{name: variables[name] for name in field_names(cls)})

    @property
    def run_path(self) -> Path:
        """Where this run writes: run_dir, from the kit's root."""
        return kit_root() / Path(self.run_dir).expanduser()

    @property
    def data_path(self) -> Path:
        """Where data sets are kept: data_dir, from the kit's root."""
        return kit_root() / Path(self.data_dir).expanduser()


def check_turn(name: str, trainings: Sequence[str]) -> None:
    """ValueError where a second optimizer never has its turn."""
    for words in trainings:
        said = re.fullmatch(TRAINING["pattern"], words)
        if said and int(said["sgd_epoch"] or 0) >= int(said["epochs"]):
            raise ValueError(f"{name} = {short(words)}: after must be below the {said['epochs']} epochs")


@dataclass(frozen=True)
class Common(Run):
    """What every notebook that certifies takes, besides."""

    skip: int = parameter(1, "certify every skip-th test image", min=1)
    images: int = parameter(500, "certify at most so many test images", min=1)
    n0: int = parameter(100, "noise samples that choose the class", min=1)
    n: int = parameter(10_000, "fresh noise samples that bound the winner's probability", min=1)
    stop: str = parameter("after n", "or sooner, an image at a time: at radii 0.25 0.5, within 0.05", **STOP)
    alpha: float = parameter(0.001, "chance that a certificate is wrong", above=0, below=1)
    two_class: bool = parameter(False, "bound the runner-up too, with half of alpha each")
    levels: int = parameter(0, "0: Gaussian noise; or that in steps of 1/levels: 16 digits, 255 photos", **LEVELS)
    batch_size: int | str = parameter(1000, "noisy images in one forward pass", **BATCH)

    def __post_init__(self) -> None:
        super().__post_init__()
        radii = self.stop.removeprefix("at radii").split() if "radii" in self.stop else []
        ascending = sorted({float(radius): radius for radius in radii}.items())
        if [float(radius) for radius in radii] != [radius for radius, _ in ascending]:
            words = " ".join(text for _, text in ascending)
            raise ValueError(f"stop = {self.stop!r}: the radii must ascend; write 'at radii {words}'")

    @property
    def at_once(self) -> int:
        """Images in a forward pass where nothing is sampled, so that "auto" finds out nothing: then 100."""
        return self.batch_size if isinstance(self.batch_size, int) else 100


@dataclass(frozen=True)
class Training(Run):
    """What trains a classifier; notebooks that agree on it share their weights."""

    arch: str = parameter("digits_cnn", "architecture of the base classifier", **NETWORK)
    epochs: int = parameter(100, "passes over the training images, for each classifier", min=1)
    train_batch: int = parameter(64, "training images in one step", min=1)
    lr: float = parameter(0.05, "first learning rate", above=0)
    schedule: str = parameter(
        "cosine", "learning rate over the epochs; one-cycle also takes Nesterov's momentum",
        choices=("step", "cosine", "one-cycle"),
    )  # fmt: skip
    weight_decay: float = parameter(1e-4, "share of the weights that each step takes away, times the rate", min=0)
    augment: bool = parameter(False, "random crops and flips of the training images")


@dataclass(frozen=True)
class NoiseTraining(Training, Common):
    """What trains the base classifiers of Cohen et al. 2019, one for each noise level."""

    sigmas: tuple[float, ...] = parameter(
        (0.12, 0.25, 0.5), "noise levels to train and certify", above=0, ascending=True
    )


@dataclass(frozen=True)
class WhyCertify(Training):
    """Notebook 00: heuristic defenses, and the attacks that are made for them (Athalye, Carlini and Wagner 2018)."""

    skip: int = parameter(1, "attack every skip-th test image", min=1)
    images: int = parameter(200, "attack at most so many test images", min=1)
    norm: str = parameter("linf", "norm of the adversary's budget", choices=("linf", "l2"))
    budget: float = parameter(0.2, "how far an image may be moved in that norm, in pixels of [0, 1]", above=0)
    steps: int = parameter(40, "steps of an attack by gradient", min=1)
    queries: int = parameter(500, "questions that an attack without gradients may ask about an image", min=1)
    temperature: float = parameter(50.0, "T of defensive distillation", min=1)
    bits: int = parameter(2, "bits a pixel that bit-depth reduction leaves", min=1, max=8)
    false_alarms: float = parameter(0.05, "share of the training images that the detector may flag", min=0, below=1)
    adversarial_epochs: int = parameter(30, "passes over the training images in adversarial training", min=1)


@dataclass(frozen=True)
class RandomizedSmoothing(NoiseTraining):
    """Notebook 01: Cohen, Rosenfeld and Kolter 2019."""

    classifier: str = parameter(
        "", "a file trained on noise; {sigma} in its path becomes the noise level; empty: trained here", **FILE
    )
    normalization: str = parameter("", "first layer of that file; empty: found out", **FIRST_LAYER)
    attacked: int = parameter(50, "images for the attack on the smoothed classifier", min=1)


@dataclass(frozen=True)
class DenoisedSmoothing(NoiseTraining):
    """Notebook 02: Salman, Sun, Yang, Kapoor and Kolter 2020, next to training on noise."""

    n: int = parameter(500, "fresh noise samples that bound the winner's probability", min=1)
    batch_size: int | str = parameter(100, "noisy images in one forward pass", **BATCH)
    sigmas: tuple[float, ...] = parameter((0.25, 0.5), "noise levels to train and certify", above=0, ascending=True)
    classifier: str = parameter(
        "", "the clean classifier: a weights file, timm:NAME or torchvision:NAME; else trained", **TRAINED
    )
    normalization: str = parameter("", "first layer of a classifier's file; empty: found out", **FIRST_LAYER)
    denoiser: str = parameter(
        "", "a published denoiser's file; {sigma} in its path becomes the noise level; empty: trained here", **FILE
    )
    surrogates: tuple[str, ...] = parameter(
        ("digits_mlp", "digits_cnn_wide"), "classifiers of the black-box denoisers: the first alone, and all in turns",
        distinct=True, files=True, **NETWORK,
    )  # fmt: skip
    denoisers: tuple[str, ...] = parameter(
        ("digits_dncnn", "digits_memnet"), "architectures: the first is used throughout, the others compared with it",
        distinct=True, choices=names.of_any(names.DENOISERS),
    )  # fmt: skip
    mse: str = parameter("60 epochs of 64, adam 1e-3", "how a denoiser learns to restore images", **TRAINING)
    stab: str = parameter("60 epochs of 64, adam 1e-3", "how one learns from scratch to keep f's answers", **TRAINING)
    stab_mse: tuple[str, ...] = parameter(
        ("20 epochs of 64, adam 1e-3", "10 epochs of 64, sgd 1e-3"),
        "ways to fine-tune the MSE denoiser to it; the best on held-out images is kept",
        distinct=True, **TRAINING,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        changing = [words for words in (self.mse, self.stab, *self.stab_mse) if "after" in words]
        if changing and self.schedule == "one-cycle":
            raise ValueError(f"schedule = 'one-cycle': {changing[0]!r} changes its optimizer on the way; write 'step'")


@dataclass(frozen=True)
class DiffusionDenoising(Common):
    """Notebook 03: Carlini et al. 2023, next to the methods of notebooks 01 and 02."""

    images: int = parameter(200, "certify at most so many test images", min=1)
    n: int = parameter(1000, "fresh noise samples that bound the winner's probability", min=1)
    batch_size: int | str = parameter(250, "noisy images in one forward pass", **BATCH)
    sigmas: tuple[float, ...] = parameter((0.25, 0.5), "noise levels to certify", above=0, ascending=True)
    compared: float = parameter(0.5, "the one of them at which methods are compared", above=0)
    baselines: str = parameter(
        "digits", "profile whose settings of notebook 02 train the other methods; empty: no others", pattern=".*"
    )
    classifier: str = parameter(
        "", "the clean classifier: a weights file, timm:NAME or torchvision:NAME; else trained", **TRAINED
    )
    normalization: str = parameter("", "first layer of a classifier's file; empty: found out", **FIRST_LAYER)
    diffusion: str = parameter("train", "diffusion model: train, train small, or one by name, hub id or folder")
    timestep: str = parameter(
        "nearest", "what the UNet is told: the nearest t* or the fractional t", choices=("nearest", "fractional")
    )
    epochs: int = parameter(120, "passes over the training images for the diffusion model", min=1)
    train_batch: int = parameter(64, "training images in one of its steps", min=1)
    lr: float = parameter(2.0e-3, "its first learning rate, with Adam", above=0)
    ema: float = parameter(0.995, "decay of the moving average of its weights", min=0, below=1)
    chains: int = parameter(250, "noisy images for one step against many", min=1)
    fine_tuned: int = parameter(10, "passes that train the classifier on denoised images; 0: none", min=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compared not in self.sigmas:
            raise ValueError(f"compared = {self.compared!r}: must be one of sigmas = {list(self.sigmas)}")
        if not (self.baselines or self.classifier):
            raise ValueError("classifier = '': name one where baselines = '', which leaves no settings to train it")


@dataclass(frozen=True)
class CertifiedTraining(Training, Common):
    """Notebook 04: the training methods of the lecture's table, and what is made of several networks."""

    images: int = parameter(300, "certify at most so many test images", min=1)
    n: int = parameter(1000, "fresh noise samples that bound the winner's probability", min=1)
    batch_size: int | str = parameter(500, "noisy images in one forward pass", **BATCH)
    epochs: int = parameter(25, "passes over the training images, for each classifier", min=1)
    sigma: float = parameter(0.5, "noise level to train and certify", above=0)
    recipes: tuple[str, ...] = parameter(
        ("copies copies 2", "gaussian", "stability lam 2", "consistency lam 3", "smoothadv epsilon 0.5 steps 2",
         "smoothadv-ddn epsilon 0.5 steps 2 levels 16", "smoothmix alpha 0.5 steps 2", "macer copies 4 lam 1",
         "cat-rs lam 0.5 epsilon 0.25 copies 2"),
        "how single classifiers are trained, the control first: a name, and its numbers", distinct=True, **METHOD,
    )  # fmt: skip
    members: int = parameter(3, "classifiers in an ensemble", min=2)
    drt: str = parameter("drt diversity 0.5 confidence 0.5", "how an ensemble is trained as one", **METHOD)
    pixeldp: str = parameter("pixeldp ramp 0", "how a classifier with noise behind its first layer is", **METHOD)
    seeds: int = parameter(2, "trainings of the control and of the best method, to see their spread", min=1)


@dataclass(frozen=True)
class OtherCertificates(NoiseTraining):
    """Notebook 05: other theorems, norms, noises and scores. All of them take a fixed n."""

    images: int = parameter(200, "certify at most so many test images", min=1)
    sigmas: tuple[float, ...] = parameter((0.25, 0.5), "two noise levels to train and certify", above=0, ascending=True)
    stop: str = parameter("after n", "a fixed n, nothing else", choices=("after n",))
    levels: int = parameter(0, "Gaussian noise; section 5 has the grid", min=0, max=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.sigmas) != 2:
            raise ValueError(f"sigmas = {list(self.sigmas)}: two levels are expected, such as [0.25, 0.5]")


@dataclass(frozen=True)
class QueryOnly(Common):
    """Notebook 06: a pretrained classifier that one can only query, and denoisers in front of it."""

    dataset: str = parameter(
        "photographs", "data set: photographs, digits, cifar10, imagenet, or a folder", choices=names.DATASETS
    )
    images: int = parameter(20, "certify at most so many test images", min=1)
    n0: int = parameter(20, "noise samples that choose the class", min=1)
    n: int = parameter(100, "fresh noise samples that bound the winner's probability", min=1)
    stop: str = parameter("after n", "a fixed n; section 6 looks sooner", choices=("after n",))
    levels: int = parameter(0, "Gaussian noise, nothing else", min=0, max=0)
    batch_size: int | str = parameter(5, "noisy images in one forward pass", **BATCH)
    sigma: float = parameter(0.25, "noise level", above=0)
    classifier: str = parameter(
        "lite0", "the service's classifier: lite0, timm:NAME, torchvision:NAME, a file",
        choices=("lite0",), prefixes=names.LIBRARIES, files=True,
    )  # fmt: skip
    queries: int = parameter(600, "the budget: how many images may be sent to the service", min=1)
    asked: int = parameter(3, "test images that are certified through the service", min=1)
    price: float = parameter(1.5, "dollars for 1,000 queries, for the sums in section 6", min=0)
    denoiser: str = parameter(
        "photo_unet", "architecture of the denoiser that is trained", choices=names.of_any(names.DENOISERS)
    )
    patches: int = parameter(1500, "pieces of pictures to train it on", min=1)
    mse: str = parameter("8 epochs of 8, adam 3e-3", "how it learns to restore pictures", **TRAINING)
    stab: str = parameter("10 epochs of 4, adam 3e-4", "how it learns, after that, to keep answers", **TRAINING)
    blends: tuple[float, ...] = parameter(
        (0.0, 0.1, 0.2, 0.3, 1.0), "shares of the noisy picture to try", min=0, max=1, ascending=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        needed = (self.asked + 1) * (self.n0 + self.n)
        if needed > self.queries:
            raise ValueError(f"queries = {self.queries}: asked = {self.asked} images and one more take n0 + n queries "
                             f"each; write queries {needed}, or less of the others")  # fmt: skip


@dataclass(frozen=True)
class Presenting(Training):
    """Notebook 07: the checkpoint talk, with a picture of one's own classifier under attack."""

    skip: int = parameter(1, "take every skip-th test image", min=1)
    images: int = parameter(200, "attack at most so many test images", min=1)
    talk: str = parameter("", "your copy of docs/talk.yaml; empty: the example", choices=("",), files=True)
    budget: float = parameter(0.5, "how far the attack of section 2 may move an image, in l2", above=0)


NOTEBOOKS: dict[str, type[Run]] = {
    "00_why_certify": WhyCertify,
    "01_randomized_smoothing": RandomizedSmoothing,
    "02_denoised_smoothing": DenoisedSmoothing,
    "03_diffusion_denoising": DiffusionDenoising,
    "04_training": CertifiedTraining,
    "05_other_certificates": OtherCertificates,
    "06_query_only": QueryOnly,
    "07_talk": Presenting,
}


def names_set_beside(parameters: Collection[str], cells: Iterable[str]) -> list[str]:
    """What the parameters cell sets beside the parameters, in order: the last of the cells run that sets most of them.

    `cells`: the sources, oldest first, as IPython keeps them in `In`; where there are none (nbval), nothing is found.
    """
    for source in reversed(list(cells)):
        try:
            tree = ast.parse(source)
        except SyntaxError:
            continue
        assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
        names = [name.id for node in assigned for name in ast.walk(node) if isinstance(name, ast.Name) and stored(name)]
        if 2 * len(set(names) & set(parameters)) > len(parameters):
            return [name for name in names if name not in parameters]
    return []


def stored(name: ast.Name) -> bool:
    """Whether the name is given a value there, not read."""
    return isinstance(name.ctx, ast.Store)


def field_names(config: type[Run]) -> list[str]:
    """The names of a dataclass's parameters, in order."""
    return [field.name for field in dataclasses.fields(config)]
