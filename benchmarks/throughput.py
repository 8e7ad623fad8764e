"""Samples a second of the kit, as ratios measured in one run: `make bench ARGS=--all`.

bare   the forward pass alone, at its best batch size: no noise, no counting. The kit aims at 0.9 of it.
n      the kit's estimation stage of CERTIFY: many samples of each image.
n0     its selection stage: 100 samples of each image, where batches that mix images pay.
loop   what the papers' public code does: one image at a time, batches of 1000, labels counted in Python on the host.
ART    the randomized smoothing of the Adversarial Robustness Toolbox, CERTIFY from end to end; where it is installed.
fast   the kit's n stage with f computed as --fast says, to the kit's n stage in float32; and to its own bare pass.

All are in float32 but for the columns of fast, on a GPU too: no TF32, which is --fast tf32. Weights are random: speed
does not depend on them. Machines are noisy, so the contenders take turns and each ratio is the median over the rounds,
with the range beside it.
--auto measures instead the batch size that the kit finds out for itself: against the best given one and the loop.
--growth measures instead how samples a second and memory grow with n, images, classes and batch size.
(All of them, the peers too, have malloc as the kit sets it, see lib/machine/memory.py.)
"""

import argparse
import importlib.util
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib.datasets import CIFAR10_MEAN, CIFAR10_STD, load_dataset
from lib.machine.files import atomic_write
from lib.models import Denoised, build_classifier, build_denoiser
from lib.models.classifiers import CifarResNet, DigitsCNN, Normalize
from lib.models.compute import Computed
from lib.sampling import class_counts
from lib.sampling.pace import pace_of

SIGMA = 0.25
# Where the bare forward pass looks for its best.
BATCH_SIZES = {"cpu": (10, 25, 50, 125, 250, 500, 1000, 2000), "cuda": (64, 256, 1024, 4096, 16384)}


def digits_cnn() -> nn.Module:
    return build_classifier("digits_cnn", load_dataset("digits"))


def resnet(depth: int) -> nn.Module:
    return nn.Sequential(Normalize(CIFAR10_MEAN, CIFAR10_STD), CifarResNet(depth, "B", 10))


def denoised(depth: int) -> nn.Module:
    return Denoised(build_denoiser("cifar_dncnn"), resnet(depth))


def diffused(unet: Callable[[], nn.Module], classifier: Callable[[], nn.Module]) -> nn.Module:
    from diffusers import DDPMScheduler

    from lib.models.diffusion import DiffusionDenoiser

    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    return Denoised(DiffusionDenoiser(unet(), scheduler, SIGMA), classifier())


def unet(shape: tuple[int, int, int]) -> nn.Module:
    from lib.models.small_unet import UNETS

    return UNETS["train"][shape]()


def resnet50() -> nn.Module:
    from torchvision.models import resnet50

    return nn.Sequential(Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), resnet50())


def vit() -> nn.Module:
    from timm import create_model

    return nn.Sequential(Normalize((0.5,) * 3, (0.5,) * 3), create_model("vit_base_patch16_224", pretrained=False))


DIGIT, CIFAR, IMAGENET = (1, 8, 8), (3, 32, 32), (3, 224, 224)

# name -> (builder, image shape, samples in one measurement on a CPU and on a GPU: there, a quarter of a second or so)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], tuple[int, int]]] = {
    "digits_cnn": (digits_cnn, DIGIT, (100_000, 1_000_000)),
    "digits diffusion + digits_cnn": (partial(diffused, partial(unet, DIGIT), digits_cnn), DIGIT, (6_000, 80_000)),
    "ResNet-20": (partial(resnet, 20), CIFAR, (2_000, 100_000)),
    "ResNet-110": (partial(resnet, 110), CIFAR, (500, 20_000)),
    "DnCNN + ResNet-110": (partial(denoised, 110), CIFAR, (200, 5_000)),
    "DDPM + ResNet-110": (partial(diffused, partial(unet, CIFAR), partial(resnet, 110)), CIFAR, (20, 1_000)),
    "ResNet-50, 224 pixels": (resnet50, IMAGENET, (50, 1_000)),
    "ViT-B/16, 224 pixels": (vit, IMAGENET, (10, 400)),
}


def samples_of(name: str, device: torch.device) -> int:
    """Samples in one measurement."""
    return MODELS[name][2][device.type == "cuda"]


@torch.inference_mode()
def bare(model: nn.Module, images: Tensor, samples: int, batch_size: int) -> None:
    """The forward pass on one batch, again and again."""
    batch = images[:1].expand(batch_size, -1, -1, -1).contiguous()
    for _ in range(max(1, samples // batch_size)):
        model(batch)


@torch.inference_mode()
def papers_loop(model: nn.Module, images: Tensor, n: int, num_classes: int) -> np.ndarray:
    """One image after the other, a batch of copies each time, labels counted one by one on the host."""
    counts = np.zeros((len(images), num_classes), int)
    for row, image in zip(counts, images):
        for first in range(0, n, 1000):
            copies = image.repeat(min(1000, n - first), 1, 1, 1)
            for label in model(copies + SIGMA * torch.randn_like(copies)).argmax(1).cpu().numpy():
                row[label] += 1
    return counts


def kit(model: nn.Module, images: Tensor, n: int, batch_size: int | str, num_classes: int) -> None:
    """The kit's class counts."""
    class_counts(
        model, images, range(len(images)), n, sigma=SIGMA, num_classes=num_classes, batch_size=batch_size
    )  # fmt: skip


def art(model: nn.Module, images: Tensor, n: int, batch_size: int, num_classes: int) -> Callable[[], object]:
    """The toolbox's certification of `images` with n samples each, those that select a class among them."""
    selecting = min(100, n // 2)
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    smoothed = PyTorchRandomizedSmoothing(
        model, loss=nn.CrossEntropyLoss(), input_shape=tuple(images.shape[1:]), nb_classes=num_classes,
        sample_size=selecting, scale=SIGMA, alpha=0.001, device_type="gpu" if images.is_cuda else "cpu",
    )  # fmt: skip
    pixels = images.cpu().numpy()
    return lambda: smoothed.certify(pixels, n=n - selecting, batch_size=batch_size)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's work included."""
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def best_batch_size(model: nn.Module, images: Tensor, samples: int) -> int:
    """The batch size at which the bare forward pass is fastest, of those that a measurement and the memory can hold."""
    pace = {}
    for size in [size for size in BATCH_SIZES[images.device.type] if min(250, samples // 20) <= size <= samples]:
        try:
            times = [seconds(lambda s=size: bare(model, images, samples, s), images.device) for _ in range(2)]
        except RuntimeError:  # out of memory, which cuDNN says in its own words
            if not pace:
                raise
            break
        pace[size] = min(times) / (samples // size * size)
    return min(pace, key=pace.get)


def measure(name: str, device: torch.device, rounds: int, fast: str, classes: int = 10) -> dict[str, object]:
    """One row of the table."""
    (build, shape, _), samples = MODELS[name], samples_of(name, device)
    classes = 1000 if shape == IMAGENET else classes
    model = Computed(build().eval().to(device).requires_grad_(False))
    quick = computed(build().eval().to(device).requires_grad_(False), fast)
    few = torch.rand(2, *shape, device=device)
    size, quick_size = best_batch_size(model, few, samples), best_batch_size(quick, few, samples)
    all_of_it, quick_all = samples // size * size, samples // quick_size * quick_size  # whole batches for all
    each, many = all_of_it // 2, torch.rand(max(1, all_of_it // 100), *shape, device=device)
    contenders: dict[str, tuple[Callable[[], object], int]] = {
        "bare": (lambda: bare(model, few, samples, size), all_of_it),
        "n": (lambda: kit(model, few, each, size, classes), 2 * each),
        "n0": (lambda: kit(model, many, 100, size, classes), 100 * len(many)),
        "loop, n": (lambda: papers_loop(model, few, each, classes), 2 * each),
        "loop, n0": (lambda: papers_loop(model, many, 100, classes), 100 * len(many)),
        "fast, bare": (lambda: bare(quick, few, samples, quick_size), quick_all),
        "fast, n": (lambda: kit(quick, few, quick_all // 2, quick_size, classes), quick_all // 2 * 2),
    }
    if importlib.util.find_spec("art"):
        contenders["ART"] = (art(model, few, each, size, classes), 2 * each)
    rate = {contender: [] for contender in contenders}
    for turn in range(rounds + 1):
        for contender, (call, count) in contenders.items():
            taken_s = seconds(call, device)
            if turn:  # the first turn warms up
                rate[contender].append(count / taken_s)
    pairs = {"n / bare": ("n", "bare"), "n0 / bare": ("n0", "bare"), "n / loop": ("n", "loop, n"),
             "n0 / loop": ("n0", "loop, n0"), "n / ART": ("n", "ART"), "fast n / n": ("fast, n", "n"),
             "fast n / fast bare": ("fast, n", "fast, bare")}  # fmt: skip
    ratios = {head: ratio(rate[a], rate[b]) if b in rate else "not installed" for head, (a, b) in pairs.items()}
    known = {"model": name, "batch": size, "bare, samples/s": round(np.median(rate["bare"]))}
    quickly = {"fast": quick.compute, "fast batch": quick_size, "fast n, samples/s": round(np.median(rate["fast, n"]))}
    return known | ratios | quickly


def computed(network: nn.Module, words: str) -> Computed:
    """`network` computed as `words` say, without folding where there is nothing to fold or torch.fx cannot follow."""
    if any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        try:
            return Computed(network, words)
        except ValueError:
            if ", folded" not in words:
                raise
    return Computed(network, words.replace(", folded", ""))


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Median of the ratios within a round, and their range."""
    ratios = np.divide(ours, theirs)
    return f"{np.median(ratios):.2f} ({ratios.min():.2f}-{ratios.max():.2f})"


def auto(name: str, device: torch.device, rounds: int) -> Iterator[dict[str, object]]:
    """Samples a second with batch_size = "auto", from a warm network of which no size is known yet, at two n."""
    (build, shape, _), samples = MODELS[name], samples_of(name, device)
    classes = 1000 if shape == IMAGENET else 10
    model, image = build().eval().to(device).requires_grad_(False), torch.rand(1, *shape, device=device)
    bare(model, image, 64, 16)
    known, again = Computed(model), Computed(model)
    kit(known, image, samples, "auto", classes)
    size = pace_of(known, image, "auto").size
    for n in (min(300, samples), samples):
        given = sorted({min(n, max(1, size * 2**k // 8)) for k in range(7)} | {min(n, s) for s in (50, 250, 1000)})
        rate: dict[object, list[float]] = {s: [] for s in ["first", "auto", "loop", *given]}
        for turn in range(rounds + 1):
            calls = {s: partial(kit, known, image, n, s, classes) for s in given}
            calls |= {"first": partial(kit, Computed(model), image, n, "auto", classes)}
            calls |= {"auto": partial(kit, again, image, n, "auto", classes)}
            calls |= {"loop": partial(papers_loop, model, image, n, classes)}
            for contender, call in calls.items():
                taken_s = seconds(call, device)
                if turn:  # the first turn warms up
                    rate[contender].append(n / taken_s)
        best = max(given, key=lambda s: np.median(rate[s]))
        pairs = {"first / best": ("first", best), "auto / best": ("auto", best), "auto / loop": ("auto", "loop")}
        row = {"model": name, "n": n, "found": pace_of(again, image, "auto").size, "best given": best}
        yield row | {head: ratio(rate[a], rate[b]) for head, (a, b) in pairs.items()}


def growth(device: torch.device) -> Iterator[dict[str, object]]:
    """How the digits network's samples a second and memory change when one number grows and the others stay."""
    start = {"n": 10_000, "images": 10, "classes": 10, "batch_size": 1000}
    changes = {"n": (100_000, 1_000_000), "images": (100, 1000), "classes": (100, 1000), "batch_size": (100, 10_000)}
    settings = [start, *(start | {name: value} for name, values in changes.items() for value in values)]
    for setting in settings:
        if setting["images"] > 10:
            setting["n"] = 1000  # as many samples as with ten images, or ten times that
    context = multiprocessing.get_context("spawn")  # a process of its own: memory is counted from nothing
    for setting in settings:
        with context.Pool(1) as pool:
            yield setting | pool.apply(growth_of, (setting, str(device)))


def growth_of(setting: dict[str, int], device: str) -> dict[str, object]:
    """Samples a second, and the memory in MB that sampling takes beyond the loaded model and the images."""
    model = nn.Sequential(Normalize((0.5,), (0.5,)), DigitsCNN(num_classes=setting["classes"])).eval().to(device)
    images = torch.rand(setting["images"], *DIGIT, device=device)
    count = partial(kit, model, images, batch_size=setting["batch_size"], num_classes=setting["classes"])
    before = memory(device)
    taken = seconds(lambda: count(setting["n"]), torch.device(device))
    return {"samples/s": round(setting["n"] * len(images) / taken), "memory, MB": round(memory(device) - before)}


def memory(device: str) -> float:
    """The most memory that has been in use so far, in MB."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # KB, on Linux


def rows_of(names: Iterable[str], measured: Callable[[str], Iterable[dict]]) -> Iterator[dict[str, object]]:
    """The rows of each model, but for those that need a library which is not installed."""
    for name in names:
        try:
            yield from measured(name)
        except ModuleNotFoundError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["digits_cnn"], metavar="NAME")
    parser.add_argument("--all", action="store_true", help="all of " + ", ".join(MODELS))
    parser.add_argument("--auto", action="store_true", help="the batch size that the kit finds out, to the best given")
    parser.add_argument("--growth", action="store_true", help="how speed and memory grow, of the digits network")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fast", default="bfloat16, channels-last, folded", metavar="WORDS")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=float, default=float("inf"), metavar="SECONDS", help="no new row after these")
    parser.add_argument("--output", type=Path, metavar="CSV")
    options = parser.parse_args()
    device, names = torch.device(options.device), MODELS if options.all else options.models
    if options.growth:
        lines = growth(device)
    else:
        lines = rows_of(names, lambda name: auto(name, device, options.rounds) if options.auto
                        else [measure(name, device, options.rounds, options.fast)])  # fmt: skip
    rows, ends = [], time.monotonic() + options.limit
    for row in lines:
        if not rows:
            print("| " + " | ".join(row) + " |\n|" + " --- |" * len(row))
        rows.append(row)
        print("| " + " | ".join(map(str, row.values())) + " |", flush=True)
        if options.output:  # each time: some rows take minutes
            atomic_write(options.output, pd.DataFrame(rows).to_csv(index=False))
        if time.monotonic() > ends:
            print(f"stopped after --limit {options.limit:g} seconds", file=sys.stderr)
            break


if __name__ == "__main__":
    main()
