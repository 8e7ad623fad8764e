"""What a team says in its talk.yaml; every word of it is checked before anything is drawn."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.config.fields import refuse_unknown, short
from lib.config.notebooks import kit_root
from lib.config.strict_yaml import read_yaml
from lib.machine.provenance import PROJECT_ROOT


@dataclass(frozen=True)
class Paper:
    """A paper whose table can be the target.

    `points`: what its slide says; `table`: its name in `lib.tables.paper_rows`; `samples`: n0 + n an image, by
    benchmark; `rows`: which records may fill a row of its table, {row: pattern of their names}; `command`: what makes a
    missing one, {sigma} in it becomes the noise level and {profile} the benchmark's.
    """

    title: str
    points: tuple[str, ...]
    table: str
    samples: dict[str, int]
    rows: dict[str, str]
    command: str


PAPERS = {
    "cohen2019": Paper(
        "Cohen, Rosenfeld and Kolter 2019, randomized smoothing",
        (
            "g(x): the class that f answers most often on x + noise",
            "certified radius: R = σ · Φ⁻¹(p_A)",
            "p_A from n votes by an exact binomial bound, wrong with probability α = 0.001 at most",
        ),
        "cohen2019",
        {"cifar10": 100_100, "imagenet": 100_100},
        {"σ = {}": "01_train_{0}-test_{0}"},
        'python -m lib.run 01_randomized_smoothing --profile {profile} -p sigmas "[{sigma}]"',
    ),
    "salman2020": Paper(
        "Salman et al. 2020, denoised smoothing",
        (
            "f stays as it is: a denoiser D stands in front, and g votes over f(D(x + noise))",
            "D restores the image (MSE), or keeps f's answers (Stab, Stab+MSE)",
            "white-box: D learns through f itself; black-box: through surrogates",
            "the certificate is that of Cohen et al.: R = σ · Φ⁻¹(p_A)",
        ),
        "salman2020",
        {"cifar10": 10_100, "imagenet": 10_100},
        {
            "trained on noise (Cohen)": "02_trained_on_noise_*",
            "no denoiser": "02_no_denoiser_*",
            "black-box": "02_black_*",
            "white-box": "02_Stab*",
        },
        'python -m lib.run 02_denoised_smoothing --profile {profile} -p sigmas "[0.25, 0.5, 1.0]"',
    ),
    "carlini2023": Paper(
        "Carlini et al. 2023, (certified!!) adversarial robustness for free",
        (
            "a diffusion model, trained to paint, is the denoiser: nothing is trained for robustness",
            "its timestep t* is the one whose noise is smoothing's: 1 / (1 + 4σ²) of the variance is image",
            "one step, then an off-the-shelf classifier",
            "the certificate is that of Cohen et al.: R = σ · Φ⁻¹(p_A)",
        ),
        "comparison",
        {"cifar10": 100_100, "imagenet": 10_100},
        {"Diffusion": "03_one-step_diffusion_*", "Diffusion, fine-tuned": "03_few_fine-tuned*"},
        'python -m lib.run 03_diffusion_denoising --profile {profile} -p sigmas "[0.25, 0.5, 1.0]"',
    ),
}
BENCHMARKS = {"cifar10": "CIFAR-10", "imagenet": "ImageNet"}
PROFILES = {"cifar10": "cifar10_fast", "imagenet": "imagenet"}
TASK = ("what", "who", "by")
THE_KITS = "the kit's"


@dataclass(frozen=True)
class Talk:
    """A team's talk. Text fields are one line each; `records` is a folder of records, from the kit's root.

    `paper` and `benchmark`: whose table, and on which data, is the target; names of PAPERS and BENCHMARKS. `tasks`:
    what, who, by when. `command`: what makes a record that is missing, the kit's or your own; {sigma} in it becomes the
    noise level.
    ValueError for what has another type, for an empty text and for an unknown paper or benchmark.
    """

    title: str = "Certified robustness by randomized smoothing"
    course: str = "Trustworthy machine learning"
    team: str = "Team of two"
    members: tuple[str, ...] = ("First Member", "Second Member")
    paper: str = "cohen2019"
    benchmark: str = "cifar10"
    records: str = "results/cifar10_fast"
    data: str = "a JPEG copy of CIFAR-10"
    command: str = THE_KITS
    difference: tuple[str, ...] = (
        "Half of the paper's network and a fifth of its training",
        "No more samples than the table needs: a test that may look at the votes",
        "Every certificate can be recomputed from its votes",
    )
    tasks: tuple[dict[str, str], ...] = (
        {"what": "The paper's ResNet-110, 90 epochs", "who": "First Member", "by": "week 2"},
        {"what": "A diffusion model as the denoiser", "who": "Second Member", "by": "week 3"},
        {"what": "Report", "who": "both", "by": "week 4"},
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, str):
                self._check(field.name, value)
                continue
            if not isinstance(value, (list, tuple)) or not value:
                raise ValueError(f"{field.name} = {short(value)}: a list is expected, each line beginning with '- '")
            for i, item in enumerate(value):
                if field.name != "tasks":
                    self._check(f"{field.name}[{i}]", item)
                    continue
                if not isinstance(item, Mapping):
                    raise ValueError(f"tasks[{i}] = {short(item)}: write {{what: ..., who: ..., by: ...}}")
                refuse_unknown(item, TASK, f"part of tasks[{i}]")
                for part in TASK:
                    self._check(f"tasks[{i}].{part}", item.get(part))
            object.__setattr__(self, field.name, tuple(value))  # the dataclass is frozen
        choices: dict[str, Collection[str]] = {"paper": PAPERS, "benchmark": BENCHMARKS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {short(getattr(self, name))}: must be one of {', '.join(known)}")

    @staticmethod
    def _check(name: str, value: Any) -> None:
        if not isinstance(value, str) or not value.strip() or "\n" in value.strip():
            raise ValueError(f'{name} = {short(value)}: one line of text is expected; quote numbers and dates: "..."')

    @property
    def target(self) -> Paper:
        """The paper whose table is the target."""
        return PAPERS[self.paper]

    @property
    def folder(self) -> Path:
        """Where its records lie: from the kit's root, or the committed ones of the project."""
        own = kit_root() / self.records
        return own if own.is_dir() else PROJECT_ROOT / self.records


def load_talk(path: str | Path | None = None) -> Talk:
    """The talk of a YAML file; without one the example. FileNotFoundError; ValueError, with the right name, for an
    unknown field."""
    if path is None:
        return Talk()
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; begin with a copy of docs/talk.yaml")
    values = read_yaml(Path(path)) or {}
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}: lines such as 'title: ...' are expected, got {short(values)}")
    refuse_unknown(values, [field.name for field in dataclasses.fields(Talk)], f"line of {Path(path).name}")
    return Talk(**values)
