"""Every notebook runs to its end for every legal value, whatever its results are, on digits and on a folder of images.

The runs are small, in a folder of their own, and two of them take place at a time: each test waits for its own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageDraw
from printed_exercises import CHECK, printed
from recommended import ROOT, of_notebooks, of_readme, runs

from lib.config import NOTEBOOKS, field_names
from lib.models.classifiers import CifarResNet
from lib.run import arguments

NUMBERS = ("00", "01", "02", "03", "04", "05", "06", "07")
ZERO, ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN = (
    next(name for name in NOTEBOOKS if name.startswith(number)) for number in NUMBERS
)
BRIEF = "1 epochs of 16, adam 1e-3"
LETTER = next(words for words in runs(of_readme()) if words[0] == ONE)  # README's first example, to the letter
# Every command of the notebooks that has a folder of its own: those need neither a GPU nor files.
TRIED = {" ".join(words): arguments(words) for words in runs(of_notebooks()) if "run_dir" in words}

# What makes any run short, where the notebook has such a parameter and the test below does not set it.
SMALL = {
    "epochs": "2", "train_batch": "32", "images": "20", "n": "100", "attacked": "3", "chains": "3", "mse": BRIEF,
    "adversarial_epochs": "1", "stab": BRIEF, "stab_mse": f'["{BRIEF}"]', "baselines": "{kit}/digits.yaml",
}  # fmt: skip
LARGE = {"n": "100", "stab": "3 epochs of 16, adam 1e-3, sgd 1e-2 after 2"}  # what of a recommended run is made small
SHAPES = {"dataset": "folder", "data_dir": "shapes", "run_dir": "runs/shapes", "images": "6", "n": "50", "n0": "1"}

ON_A_CPU = yaml.safe_load((ROOT / "profiles/cifar10_cpu.yaml").read_text(encoding="utf-8"))[FOUR]  # every method

# Name of a run -> its notebook and what is set. Seeds, alphas, sample sizes and stopping rules are spread over them.
RUNS: dict[str, tuple[str, dict[str, str]]] = {
    "README's first": (ONE, dict(arguments(LETTER).settings)),
    "00, one image, in l2": (ZERO, {
        "images": "1", "norm": "l2", "budget": "3", "steps": "1", "queries": "1", "bits": "1", "temperature": "1",
        "false_alarms": "0", "adversarial_epochs": "1", "seed": "4294967295",
    }),
    "00 on colours": (ZERO, {
        "dataset": "folder", "data_dir": "shapes", "run_dir": "runs/shapes", "images": "6", "arch": "cifar_resnet20",
        "steps": "2", "queries": "3", "adversarial_epochs": "1",
    }),
    "03, one image": (THREE, {
        "images": "1", "chains": "1", "n": "20", "n0": "1", "alpha": "0.5", "stop": "within 0.05",
    }),
    "01, one level, one image": (ONE, {"sigmas": "[0.5]", "images": "1", "n": "1", "n0": "1", "seed": "1"}),
    "01, both bounds, on the grid": (ONE, {"two_class": "true", "levels": "16", "sigmas": "[0.25, 0.5]"}),
    "01, the paper's four levels": (ONE, {
        "sigmas": "[0.12, 0.25, 0.5, 1.0]", "alpha": "0.05", "seed": "2", "stop": "at radii 0 0.25 0.5",
    }),
    "01 on colours": (ONE, {
        **SHAPES, "arch": "cifar_resnet20", "sigmas": "[0.25]", "alpha": "0.05", "skip": "2", "epochs": "8",
        "train_batch": "8", "attacked": "1",
    }),
    "02 on colours": (TWO, {
        **SHAPES, "arch": "cifar_resnet20", "surrogates": "[cifar_resnet32]", "denoisers": "[cifar_dncnn_small]",
        "sigmas": "[0.12]", "images": "1", "seed": "1",
    }),
    "04, one method, one image": (FOUR, {
        "recipes": "[macer copies 1]", "members": "2", "seeds": "1", "images": "1", "n": "1", "n0": "1", "alpha": "0.5",
        "stop": "within 0.05", "seed": "4294967295",
    }),
    "04 on colours": (FOUR, {
        **SHAPES, "arch": "cifar_resnet20", "members": "2", "sigma": "0.25", "alpha": "0.05", "levels": "255",
        "recipes": json.dumps(ON_A_CPU["recipes"]), "drt": ON_A_CPU["drt"], "pixeldp": ON_A_CPU["pixeldp"],
    }),
    "05, one image": (FIVE, {
        "images": "1", "n": "2", "n0": "1", "alpha": "0.5", "two_class": "true", "seed": "4294967295",
    }),
    "05 on colours": (FIVE, {**SHAPES, "arch": "cifar_resnet20", "sigmas": "[0.12, 0.25]", "alpha": "0.05"}),
    "06, one photograph": (SIX, {
        "images": "1", "asked": "1", "n": "2", "n0": "1", "alpha": "0.5", "patches": "4", "queries": "9",
        "blends": "[0.5]", "seed": "4294967295", "price": "0",
    }),
    "06 on colours": (SIX, {
        **SHAPES, "classifier": "resnet.pth", "denoiser": "cifar_dncnn_small", "queries": "500", "patches": "6",
        "asked": "2", "n": "20", "two_class": "true", "alpha": "0.05",
    }),
    "07, one image, nothing run": (SEVEN, {"images": "1", "talk": "mine.yaml", "budget": "2", "seed": "4294967295"}),
    "07 on colours": (SEVEN, {
        "dataset": "folder", "data_dir": "shapes", "run_dir": "runs/shapes", "images": "6", "arch": "cifar_resnet20",
    }),
    "03 on colours": (THREE, {
        **SHAPES, "sigmas": "[0.25]", "compared": "0.25", "diffusion": "{kit}/unet", "baselines": "{kit}/colours.yaml",
        "compute": "float32, channels-last, folded",
    }),
    "03, a small diffusion model": (THREE, {
        **SHAPES, "sigmas": "[0.25]", "compared": "0.25", "diffusion": "train small", "baselines": "",
        "run_dir": "runs/trained_on_shapes", "images": "1", "n": "20", "chains": "1", "classifier": "{kit}/resnet.pth",
    }),
}  # fmt: skip
FEW = {
    ZERO: {"queries": "5"},
    SIX: {"asked": "1", "n": "20", "n0": "1", "patches": "4", "queries": "60", "blends": "[0.5]"},
}
for line, options in TRIED.items():
    settings = {name: LARGE.get(name, text) for name, text in options.settings}
    RUNS[line] = (options.notebooks[0], FEW.get(options.notebooks[0], {}) | settings)
ANSWERED = [name for name in RUNS if "colours" in name]  # run with the printed solutions in place of the ...


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """A kit root with coloured shapes, a diffusion model with random weights, and profiles of short trainings."""
    folder = tmp_path_factory.mktemp("kit")
    draw_shapes(folder / "shapes")
    save_unet(folder / "unet")
    (folder / "mine.yaml").write_text("title: Nothing yet\nrecords: nowhere\nbenchmark: imagenet\n")
    torch.save(
        {"arch": "cifar_resnet20", "state_dict": CifarResNet(20, num_classes=3).state_dict()}, folder / "resnet.pth"
    )
    colours = "arch: cifar_resnet20, denoisers: [cifar_dncnn_small], "
    for name, more in {"digits": "", "colours": colours}.items():
        text = f'02_denoised_smoothing: {{{more}epochs: 1, mse: "{BRIEF}", stab_mse: ["{BRIEF}"]}}'
        (folder / f"{name}.yaml").write_text(text)
    return folder


def draw_shapes(folder: Path) -> None:
    """Three classes, of 32 x 32 pixels: red squares, green discs and blue bars on grey."""
    draw = {"square": ImageDraw.ImageDraw.rectangle, "disc": ImageDraw.ImageDraw.ellipse}
    random = np.random.default_rng(0)
    for split, size in {"train": 16, "test": 4}.items():
        for colour, name in {"red": "square", "green": "disc", "blue": "bar"}.items():
            (folder / split / name).mkdir(parents=True)
            for i in range(size):
                image = Image.new("RGB", (32, 32), (int(random.integers(60, 200)),) * 3)
                left, top = random.integers(2, 12, 2).tolist()
                corners = (left, top, left + (16 if name != "bar" else 4), top + 16)
                draw.get(name, ImageDraw.ImageDraw.rectangle)(ImageDraw.Draw(image), corners, fill=colour)
                image.save(folder / split / name / f"{i}.png")


def save_unet(folder: Path) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = UNet2DModel(32, 3, 3, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4, **blocks)
    unet.save_pretrained(folder / "unet")
    DDPMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(folder / "scheduler")


def answered(path: Path, folder: Path) -> Path:
    """A copy of a notebook in which each printed solution stands in the place of its stub."""
    notebook = nbformat.read(path, as_version=4)
    solved = {exercise.stub: exercise.solved for exercise in printed(notebook)}
    for cell in notebook.cells:
        cell.source = solved.get(cell.source, cell.source)
    nbformat.write(notebook, folder / path.name)
    return folder / path.name


def execute(kit: Path, name: str) -> subprocess.CompletedProcess:
    notebook, values = RUNS[name]
    path = ROOT / "notebooks" / f"{notebook}.ipynb"
    small = {key: value for key, value in SMALL.items() if key in field_names(NOTEBOOKS[notebook])}
    values = small | {"run_dir": f"runs/{name}"} | values
    settings = [word for item in values.items() for word in ("-p", *item)]
    words = [
        str(answered(path, kit) if name in ANSWERED else path),
        *(word.replace("{kit}", str(kit)) for word in settings),
    ]
    env = os.environ | {"KIT_ROOT": str(kit), "KIT_PROGRESS": "off", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "lib.run", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def done(kit, request) -> Mapping[str, Future]:
    """The runs that the chosen tests are about, two at a time and in the order of RUNS; result() waits for one."""
    chosen = {item.callspec.params["name"] for item in request.session.items if item.parent is request.node}
    with ThreadPoolExecutor(2) as lanes:
        yield {name: lanes.submit(execute, kit, name) for name in RUNS if name in chosen}


@pytest.mark.parametrize("name", RUNS)
def test_a_notebook_runs_to_its_end(name, done):
    result = done[name].result()
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize("name", ANSWERED)
def test_the_printed_solutions_are_right(name, done, kit):
    done[name].result()
    notebook = nbformat.read(kit / "runs/shapes" / f"{RUNS[name][0]}.ipynb", as_version=4)
    checks = [cell for cell in notebook.cells if cell.cell_type == "code" and CHECK.search(cell.source)]
    assert [cell.outputs[0].text.splitlines()[0] for cell in checks] == ["Right."] * len(checks) and checks
