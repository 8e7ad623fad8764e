"""All that a GPU has to show, in one command: `python -m benchmarks.gpu`, with CIFAR-10 in data/.

tests        the CUDA paths: counts that do not depend on the batch, other precisions, a full memory, a kill
throughput   samples a second against the bare forward pass and the papers' loop, by itself on the device
train        the classifiers of notebook 01 at all noise levels, the first denoiser of 02 and the diffusion model of 03,
             side by side: one alone leaves a large GPU waiting
01, 02, 03   the notebooks of the three papers with the profile, which take these weights up
fixed        one noise level of 01 again for every fifth of its images, with the papers' fixed n = 100,000

Each step is a process of its own with its log in OUT/logs. Those that may run side by side do: trainings that wait for
each other's weights find them. A step that fails stops no other; after --limit seconds what is left is stopped, and
records, trainings and the steps that are done keep what they have: the same command goes on from there.
OUT/steps.csv has the seconds and the result of each step. `python -m results.collect PROFILE` keeps the small records.

--toy takes every step with a few made-up images and hardly any training, also on a CPU: to try the command.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from lib.config import NOTEBOOKS, field_names, load_profile
from lib.machine.files import atomic_write
from lib.machine.provenance import PROJECT_ROOT
from lib.run import PAPERS as PAPERS_BEGIN

PAPERS = [name for name in NOTEBOOKS if name.startswith(PAPERS_BEGIN)]
FIRST = PAPERS[0]
FIXED_SIGMA = 0.25
FIXED_SHARE = 5
BRIEF = "1 epochs of 8, adam 1e-3"
TOY = {
    "images": 1, "skip": 1, "n": 20, "n0": 4, "alpha": 0.1, "batch_size": 20, "run_dir": "runs/toy",
    "arch": "cifar_resnet20", "sigmas": [FIXED_SIGMA], "epochs": 1, "train_batch": 8, "attacked": 1, "chains": 1,
    "surrogates": ["cifar_resnet32"], "denoisers": ["cifar_dncnn_small"],
    "mse": BRIEF, "stab": BRIEF, "stab_mse": [BRIEF],
}  # fmt: skip


@dataclass
class Step:
    """One process: `words` after `python -m`; `alone`: nothing else may run; `after`: steps that must have ended."""

    name: str
    words: list[str]
    alone: bool = False
    after: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    started: float = 0.0
    seconds: float = 0.0
    result: str = "not started"

    @property
    def running(self) -> bool:
        return self.result == "running"


def steps(options: argparse.Namespace) -> list[Step]:
    """The steps that `options` ask for, in the order in which they are started."""
    device, out = options.device, options.out
    models = ["--models", "ResNet-20"] if options.toy else ["--all"]
    rounds = "1" if options.toy else "3"
    made = [
        Step("tests", ["pytest", "-q", "-p", "no:cacheprovider", "tests/test_cuda.py"], alone=True),
        Step("throughput", ["benchmarks.throughput", "--device", device, *models, "--rounds", rounds,
                            "--output", str(out / "throughput.csv")], alone=True),
    ]  # fmt: skip
    again = ["--profile", options.profile, "--device", device, "--data", str(options.data)]
    sigmas = load_profile(options.profile, FIRST)["sigmas"]
    of_02, of_03, *of_01 = [f"train {what}" for what in ("denoiser", "diffusion", 0.0, *sigmas)]
    made += [Step(name, ["benchmarks.gpu", "--part", *name.split(), *again]) for name in (of_03, of_02, *of_01)]
    for name, needed in zip(PAPERS, (of_01, [*of_01, of_02], [*of_01, of_02, of_03])):
        words = ["lib.run", name, "--profile", options.profile, *settings(options)]
        made.append(Step(name[:2], words, after=tuple(needed)))
    made.append(Step("fixed", ["benchmarks.gpu", "--part", "fixed", str(FIXED_SIGMA), *again], after=("01",)))
    return [step for step in made if not options.steps or step.name.split()[0] in options.steps]


def overrides(options: argparse.Namespace) -> dict[str, str]:
    """The parameters of every notebook that the command line sets."""
    folder = {"dataset": "folder"} if (options.data / "train").is_dir() else {}
    return {"device": options.device, "data_dir": str(options.data), **folder}


def settings(options: argparse.Namespace) -> list[str]:
    """The same as words of lib.run."""
    return [word for name, value in overrides(options).items() for word in ("-p", name, value)]


def part(options: argparse.Namespace) -> None:
    """A part of a notebook, in this process: ("train", "diffusion" | "denoiser" | sigma) or ("fixed", sigma).

    The record of "fixed" is called 01_fixed_n_<sigma>: every image has all n samples, whatever the profile says of
    stopping.
    """
    from lib import datasets, methods

    what, which = options.part
    notebook = dict(zip(("denoiser", "diffusion"), PAPERS[1:])).get(which, FIRST)
    values = load_profile(options.profile, notebook) | overrides(options)
    cfg = NOTEBOOKS[notebook](**values | ({"stop": "after n"} if what == "fixed" else {}))
    data = datasets.load_dataset(cfg.dataset, cfg.data_path)
    if which == "diffusion":
        methods.diffusion_model(cfg, data)
    elif which == "denoiser":
        methods.mse_denoiser(cfg, data, cfg.sigmas[0])
    else:
        base = methods.noise_trained_classifier(cfg, data, float(which))
        if what == "fixed":
            share = -(-cfg.images // FIXED_SHARE)
            ids = datasets.fixed_subset(len(data.test), cfg.skip * FIXED_SHARE, share)
            methods.certified(cfg, data, base, float(which), f"01_fixed_n_{which}", ids)


def make_toy(options: argparse.Namespace) -> None:
    """Made-up images of two classes and a short profile, in OUT/toy, in place of those that the command line names."""
    folder, random = options.out / "toy", np.random.default_rng(0)
    for split, count in {"train": 20, "test": 4}.items():
        for colour, name in enumerate(("red", "green")):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = random.integers(0, 128, (32, 32, 3), dtype=np.uint8)
                pixels[..., colour] += 100
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    profile = folder / "toy.yaml"
    small = TOY | {"compared": FIXED_SIGMA, "baselines": str(profile)}
    sections = {name: load_profile(options.profile, name) for name in PAPERS}
    for name, values in sections.items():
        values |= {key: value for key, value in small.items() if key in field_names(NOTEBOOKS[name])}
    atomic_write(profile, yaml.safe_dump(sections))
    options.data, options.profile = folder, str(profile)


def run(todo: list[Step], out: Path, limit: float, together: int) -> None:
    """Run the steps, at most `together` at a time, until all have ended or `limit` seconds are over."""
    (out / "logs").mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + limit
    while any(step.result in ("not started", "running") for step in todo):
        for step in todo:
            if step.running and step.process and step.process.poll() is not None:
                end(step, f"code {step.process.returncode}" if step.process.returncode else "done", out, todo)
        if time.monotonic() > ends:
            for step in todo:
                if step.running:
                    stop(step)
                    end(step, "stopped at the limit", out, todo)
            break
        for step in todo:
            running = [other for other in todo if other.running]
            waits = any(other.name in step.after and other.result in ("not started", "running") for other in todo)
            free = len(running) < together and not any(other.alone for other in running)
            if step.result != "not started" or waits or not free or (step.alone and running):
                continue
            if any(other.alone and other.result == "not started" for other in todo) and not step.alone:
                continue  # what must be alone comes first
            start(step, out)
        time.sleep(0.2)


def start(step: Step, out: Path) -> None:
    step.started, step.result = time.monotonic(), "running"
    with (out / "logs" / f"{step.name}.txt").open("wb") as log:
        step.process = subprocess.Popen(
            [sys.executable, "-m", *step.words], cwd=PROJECT_ROOT, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True, env=os.environ | {"KIT_PROGRESS": "log"},
        )  # fmt: skip
    print(f"{step.name}: started, {' '.join(step.words)}", flush=True)


def stop(step: Step) -> None:
    """End a step's process and those that it has started."""
    assert step.process
    os.killpg(step.process.pid, signal.SIGINT)
    try:
        step.process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(step.process.pid, signal.SIGKILL)


def end(step: Step, result: str, out: Path, todo: list[Step]) -> None:
    step.result, step.seconds = result, time.monotonic() - step.started
    print(f"{step.name}: {result} after {step.seconds:.0f} s", flush=True)
    rows = [{"step": s.name, "seconds": round(s.seconds, 1), "result": s.result} for s in todo]
    atomic_write(out / "steps.csv", pd.DataFrame(rows).to_csv(index=False))


def main() -> int:
    """0 where every step is done, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="CIFAR-10, or a folder with train/ and test/")
    parser.add_argument("--profile", default="cifar10_fast")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--steps", nargs="+", metavar="NAME", help="only these; all of them are listed above")
    parser.add_argument("--limit", type=float, default=86_400, metavar="SECONDS")
    parser.add_argument("--together", type=int, default=8, help="steps that may run side by side (default: 8)")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)  # what a process of `train` or `fixed` is told
    options = parser.parse_args()
    options.data, options.out = options.data.resolve(), options.out.resolve()
    if options.part:
        part(options)
        return 0
    if options.toy:
        make_toy(options)
    todo = steps(options)
    unknown = set(options.steps or ()) - {step.name.split()[0] for step in todo}
    if unknown:
        parser.error(f"--steps {sorted(unknown)[0]}: no such step")
    run(todo, options.out, options.limit, options.together)
    return int(any(step.result != "done" for step in todo))


if __name__ == "__main__":
    sys.exit(main())
