"""What a GPU must do as a CPU does: each sentence on the CPU, which tests the tests, and on CUDA where there is one."""

import json
import shutil
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import fisher_exact
from torch import nn
from toys import Recorder, hyperplane

from lib.attacks import pgd, smoothed_loss
from lib.certification import certify_dataset
from lib.datasets import load_dataset, stack
from lib.models import DENOISERS, build_classifier
from lib.models.compute import Computed
from lib.models.surrogates import DIGITS_SURROGATES
from lib.sampling import Gaussian, Grid, class_counts, standard_normal, uniform_bits
from lib.smoothing import SmoothedClassifier
from lib.training import Recipe, train
from lib.training.objectives import DDPM, MSE
from lib.training.objectives import Gaussian as NoisyTraining

CPU, SIGMA = torch.device("cpu"), 0.5
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LEVEL = 1e-6  # how often a test of equal proportions may be wrong, all images together
DATA = load_dataset("digits")
IMAGES, LABELS = stack(DATA.test, range(100))
CLASSIFIER = Recipe(NoisyTraining(SIGMA), "digits_cnn", epochs=4, batch_size=64, lr=0.05, schedule="cosine")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=GPU)])
def device(request):
    return torch.device(request.param)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def network(weights):
    """Trained for seconds, on the CPU: sure of some images under noise, and not of others."""
    return fit(CLASSIFIER, weights)


def build_digits_cnn():
    return build_classifier("digits_cnn", DATA)


def fit(recipe, folder, build=build_digits_cnn, **how):
    return train(recipe, build, DATA.train, folder, **how)


def votes(base, device, n=1000, images=IMAGES, **how):
    """Votes of the images, int64 (N, K), on the CPU."""
    how = {"sigma": SIGMA, "num_classes": 10, "batch_size": 1024} | how
    return class_counts(base.to(device), images.to(device), None, n, **how).cpu()


def moved(counts, others):
    """Which share of the votes went to another class."""
    return float((counts - others).abs().sum() / 2 / others.sum())


def same_shares(counts, others):
    """Whether each image's top class may have one probability in both, by Fisher's exact test."""
    top = others.argmax(1)
    rows = [[int(each[i, top[i]]) for each in (counts, others)] for i in range(len(top))]
    sizes = [each.sum(1).tolist() for each in (counts, others)]
    tables = [[row, [sizes[0][i] - row[0], sizes[1][i] - row[1]]] for i, row in enumerate(rows)]
    return min(fisher_exact(table).pvalue for table in tables) > LEVEL / len(tables)


# ---- noise and counts ------------------------------------------------------------------------------------------


@GPU
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 5), (3, 32, 32)])
def test_a_gpu_draws_the_noise_of_a_cpu(shape):
    pieces, cuda = [(7, 0, 100), (2**32 - 1, 10**9, 3), (0, 99, 402)], torch.device("cuda")
    for seed in (0, 2**32 - 1):
        assert torch.equal(uniform_bits(shape, seed, pieces, cuda).cpu(), uniform_bits(shape, seed, pieces, CPU))
        normal = standard_normal(shape, seed, pieces, cuda).cpu()
        assert torch.allclose(normal, standard_normal(shape, seed, pieces, CPU), atol=4e-6)


@pytest.mark.parametrize("noise", [Gaussian(0.5), Grid(0.5, 16)], ids=str)
def test_the_noise_of_a_sample_depends_neither_on_the_batch_nor_on_a_start_in_between(noise, device):
    def seen(batch_size, *parts):
        base = Recorder().eval()
        for start, n in parts:
            how = {"sigma": noise, "num_classes": 3, "batch_size": batch_size, "start": start}
            class_counts(base, IMAGES[[0]].to(device), [7], n, **how)
        return base.seen

    whole = seen(1000, (0, 300))
    assert whole.device.type == device.type and len(whole.unique(dim=0)) == 300
    for batch_size in (1, 7, 128):
        assert torch.equal(seen(batch_size, (0, 300)), whole)
        assert torch.equal(seen(batch_size, (0, 130), (130, 170)), whole)


@pytest.mark.parametrize("batch_size", [1, 7, 1000, "auto"])
def test_counts_do_not_depend_on_the_batch_size_nor_on_the_other_images(batch_size, device):
    images, base = torch.rand(3, 1, 3, 4, generator=torch.Generator().manual_seed(1)), hyperplane()

    def count(rows, batch_size):
        how = {"sigma": 0.5, "num_classes": 2, "seed": 3, "batch_size": batch_size}
        return class_counts(base.to(device), images[rows].to(device), [9 + row for row in rows], 250, **how)

    counts = count([0, 1, 2], 128)
    assert counts.min() > 0 and torch.equal(count([0, 1, 2], batch_size), counts)
    assert torch.equal(count([2], batch_size)[0], counts[2])


def test_votes_are_those_of_a_plain_loop_with_other_noise(network, device):
    few = IMAGES[:30]
    plain = torch.zeros(len(few), 10, dtype=torch.int64)
    draws, network = torch.Generator(device).manual_seed(0), network.to(device)
    with torch.no_grad():
        for image, row in zip(few.to(device), plain, strict=True):
            noise = torch.randn(1000, *image.shape, generator=draws, device=device)
            row += network(image + SIGMA * noise).argmax(1).bincount(minlength=10).cpu()
    assert same_shares(votes(network, device, images=few), plain)
    assert not same_shares(votes(network, device, images=few, sigma=1.2 * SIGMA), plain), "or it would tell nothing"


@GPU
def test_votes_on_a_gpu_are_those_of_the_cpu(network):
    on_cpu = votes(network, CPU)
    assert moved(votes(network, torch.device("cuda")), on_cpu) < 1e-3
    assert same_shares(votes(network, torch.device("cuda"), seed=1), on_cpu)
    grid = {"sigma": Grid(SIGMA, 16)}
    assert moved(votes(network, torch.device("cuda"), **grid), votes(network, CPU, **grid)) < 1e-3


WORDS = {  # how to compute -> the share of votes that it may move
    "tf32": 0.005, "float16": 0.01, "bfloat16": 0.03, "bfloat16, channels-last, folded": 0.03,
    "float32, channels-last, compiled": 0.001, "bfloat16, cuda-graphs": 0.03,
}  # fmt: skip
COMPILED = ("compiled", "cuda-graphs")
SLOW_ON_A_CPU = ["float16", *(words for words in WORDS if words.endswith(COMPILED))]


@pytest.mark.parametrize("words", WORDS)
def test_every_way_to_compute_gives_the_votes_of_float32(words, network, device):
    if words in SLOW_ON_A_CPU and device == CPU:
        pytest.skip("takes long on a CPU")
    if words.endswith(COMPILED) and not (
        shutil.which("cc") and Path(sysconfig.get_path("include"), "Python.h").exists()
    ):
        pytest.skip("torch.compile needs a C compiler and Python.h")
    rows = IMAGES if device.type == "cuda" else IMAGES[:20]
    exact, f = votes(Computed(network), device, images=rows), Computed(network, words)
    assert moved(votes(f, device, images=rows), exact) <= WORDS[words]
    assert same_shares(votes(f, device, images=rows, seed=1), exact)


@GPU
def test_a_gpu_whose_memory_is_too_small_for_the_batch_takes_half_of_it():
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 20_000), nn.Linear(20_000, 10)).eval()
    how = {"n": 20_000, "images": IMAGES[:3]}
    small = votes(wide, torch.device("cuda"), batch_size=500, **how)
    torch.cuda.empty_cache()
    left = torch.cuda.memory_reserved() + 400_000_000  # 20,000 rows take 1.6 GB
    torch.cuda.set_per_process_memory_fraction(left / torch.cuda.mem_get_info()[1])
    try:
        with pytest.warns(UserWarning, match="out of memory with 20000 noisy images at once; going on with 10000"):
            large = votes(wide, torch.device("cuda"), batch_size=20_000, **how)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert large.sum(1).tolist() == [20_000] * 3 and moved(large, small) < 0.001


# ---- records ---------------------------------------------------------------------------------------------------


class Killed(Exception):
    pass


def killed_at(count):
    def progress(done):
        if done >= count:
            raise Killed

    return progress


@pytest.mark.parametrize("words", ["float32", "bfloat16, channels-last"])
def test_a_killed_run_ends_with_the_same_record_which_names_the_device(words, network, device, tmp_path):
    g = SmoothedClassifier(Computed(network, words).to(device), SIGMA, 10, batch_size=250)
    how = {"n0": 50, "n": 600, "alpha": 0.001, "device": device}
    whole = certify_dataset(g, DATA.test, range(20), tmp_path / "whole" / "log", **how)
    with pytest.raises(Killed):
        certify_dataset(g, DATA.test, range(20), tmp_path / "killed" / "log", progress=killed_at(7), **how)
    resumed = certify_dataset(g, DATA.test, range(20), tmp_path / "killed" / "log", **how)
    assert whole.drop(columns="time").equals(resumed.drop(columns="time"))
    assert (whole["radius"] > 0).any() and whole["correct"].mean() > 0.3
    manifest = json.loads(next((tmp_path / "whole").glob("*.json")).read_text())
    environment, parameters = manifest["environment"], manifest["parameters"]
    assert environment["device"] == str(device) and environment["device_name"]
    assert parameters["compute"] == words and parameters["noise_drawn"].endswith(device.type)


# ---- models, training, attacks ---------------------------------------------------------------------------------


def diffusion(steps, sampler, unet=None):
    """A denoiser of the digits by a UNet with random weights, where none is given."""
    scheduler = pytest.importorskip("diffusers").DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    from lib.models.diffusion import DiffusionDenoiser
    from lib.models.small_unet import digits_unet

    torch.manual_seed(0)
    return DiffusionDenoiser(unet or digits_unet(), scheduler, SIGMA, steps, sampler).eval()


MODELS = {
    **{name: lambda build=build: build(10) for name, build in DIGITS_SURROGATES.items()},
    **{name: build for name, build in DENOISERS.items() if name.startswith("digits")},
    "digits_cnn": build_digits_cnn,
    "one step": lambda: diffusion(1, "ddpm"),
    "DDIM": lambda: diffusion(3, "ddim"),
}


@GPU
@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_on_a_gpu_as_on_a_cpu(name):
    torch.manual_seed(0)
    model = Computed(MODELS[name]().eval())
    with torch.no_grad():
        on_cpu = model(IMAGES)
        on_gpu = model.cuda()(IMAGES.cuda()).cpu()
    assert (on_gpu - on_cpu).abs().max() < 1e-3 * on_cpu.std()


def test_ancestral_noise_is_one_function_of_the_image(device):
    denoiser = diffusion(3, "ddpm").to(device)
    noisy = IMAGES[:6].to(device)
    with torch.no_grad():
        whole, parts = denoiser(noisy), torch.cat([denoiser(part) for part in noisy.split(4)])
    assert torch.allclose(whole, parts, atol=1e-3) and whole.device.type == device.type


def accuracy(model, device):
    images, labels = stack(DATA.test, range(len(DATA.test)))
    with torch.no_grad():
        noisy = images + 0.25 * standard_normal(images.shape[1:], 0, [(0, 0, len(images))], CPU)
        return (model(noisy.to(device)).argmax(1).cpu() == labels).float().mean().item()


def test_training_on_a_device_is_about_as_good_and_goes_on_after_a_kill(network, weights, device, tmp_path):
    recipe = replace(CLASSIFIER, compute="bfloat16, channels-last")
    with pytest.raises(Killed):
        fit(recipe, tmp_path, device=device, progress=killed_at(2))
    assert next(tmp_path.glob("*.resume")).stat().st_size > 0
    epochs = []
    model = fit(recipe, tmp_path, device=device, progress=epochs.append)
    assert epochs == [2, 3, 4], "two epochs were done"
    assert next(model.parameters()).device.type == device.type
    assert accuracy(model, device) > accuracy(network.to(device), device) - 0.05


@pytest.mark.parametrize("method", ["denoiser", "diffusion"])
def test_denoisers_are_trained_on_a_device(method, device, tmp_path):
    if method == "denoiser":
        recipe, build = Recipe(MSE(SIGMA), "digits_dncnn", lr=1e-3), DENOISERS["digits_dncnn"]
    else:
        scheduler = pytest.importorskip("diffusers").DDPMScheduler(beta_schedule="squaredcos_cap_v2")
        from lib.models.small_unet import digits_unet as build

        recipe = Recipe(DDPM(scheduler), "digits_unet", lr=2e-3, ema=0.9)
    recipe = replace(recipe, epochs=2, batch_size=64, optimizer="adam", compute="bfloat16, channels-last")
    with pytest.raises(Killed):
        fit(recipe, tmp_path, build, device=device, progress=killed_at(1))
    model = fit(recipe, tmp_path, build, device=device)
    x = IMAGES.to(device)
    if method == "diffusion":
        model = diffusion(1, "ddpm", model)
    with torch.no_grad():
        noisy = x + SIGMA * standard_normal(x.shape[1:], 0, [(0, 0, len(x))], device)
        assert (model(noisy) - x).square().mean() < 0.7 * SIGMA**2


def test_an_attack_on_a_device_stays_in_its_ball_and_costs_right_answers(network, device):
    x, y, network = IMAGES.to(device), LABELS.to(device), network.to(device)
    loss = smoothed_loss(network, y, sigma=0.1, samples=4, generator=torch.Generator(device).manual_seed(0))
    budget = torch.full((len(x),), 1.5, device=device)
    moved = pgd(loss, x, budget, steps=5, restarts=2, random_start=True)
    assert moved.device.type == device.type and (moved - x).flatten(1).norm(dim=1).max() < 1.5001
    assert (network(moved).argmax(1) == y).sum() < 0.8 * (network(x).argmax(1) == y).sum()
