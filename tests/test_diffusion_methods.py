"""The diffusion model as notebooks use it: trained by the kit's loop or loaded, then certified."""

import dataclasses

import pytest
import torch
from diffusers import DDPMScheduler
from torch.utils.data import TensorDataset

from lib import methods
from lib.config import Common, DenoisedSmoothing, DiffusionDenoising, load_profile, names
from lib.datasets import load_dataset
from lib.methods import carlini2023
from lib.models import Denoised
from lib.models.identity import identity
from lib.models.small_unet import UNETS, digits_unet
from lib.smoothing import SmoothedClassifier
from lib.training.objectives import DDPM, Step
from tests.toys import Constant

COMMON = dict.fromkeys(dataclasses.asdict(Common()))
DIGITS = load_dataset("digits")
FEW = dataclasses.replace(DIGITS, train=TensorDataset(*DIGITS.train[:64]))


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """One epoch, in a kit root of its own."""
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    monkeypatch.setenv("KIT_PROGRESS", "off")
    return DiffusionDenoising(epochs=1)


@pytest.fixture
def model():
    return digits_unet().eval(), DDPMScheduler(num_train_timesteps=1000)


def weights(cfg):
    return sorted(cfg.run_path.glob("weights/*.safetensors"))


def test_training_teaches_the_unet_to_tell_noise_from_digits(cfg):
    cfg = dataclasses.replace(cfg, epochs=15, ema=0.0)
    unet, scheduler = methods.diffusion_model(cfg, FEW)
    images = DIGITS.test.tensors[0][:200]
    with torch.no_grad():
        loss = DDPM(scheduler)(unet, images, None, Step(torch.Generator().manual_seed(0)))
    assert loss < 0.8  # that of a network which answers zero is 1


def test_one_model_is_trained_for_all_noise_levels_and_kept(cfg):
    first, scheduler = methods.diffusion_model(cfg, FEW)
    again, _ = methods.diffusion_model(dataclasses.replace(cfg, sigmas=(0.12, 1.0), compared=1.0), FEW)
    assert len(weights(cfg)) == 1
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))
    for sigma in (0.12, 1.0):
        assert methods.diffusion_denoiser(cfg, (first, scheduler), sigma).sigma == sigma


def another(name, value):
    """Another legal value of a parameter."""
    words = {
        "compute": "bfloat16",
        "device": "mps",
        "stop": "at radii 0.25",
        "timestep": "fractional",
        "sigmas": (0.5,),
        "two_class": True,
    }
    if name in words:
        return words[name]
    return {int: lambda x: x + 1, float: lambda x: 0.5 * x, str: lambda x: x}[type(value)](value)


def test_what_is_trained_follows_from_the_parameters_of_training_and_from_no_other(cfg, monkeypatch):
    recipes = []
    monkeypatch.setattr(carlini2023, "train", lambda recipe, *_, **__: recipes.append(recipe.plain()))
    methods.diffusion_model(cfg, FEW)
    deciding = set()
    for field in dataclasses.fields(cfg):
        value = another(field.name, getattr(cfg, field.name))
        changes = {field.name: value, **({"sigmas": (value,)} if field.name == "compared" else {})}
        methods.diffusion_model(dataclasses.replace(cfg, **changes), FEW)
        deciding |= {field.name} if recipes[-1] != recipes[0] else set()
    assert deciding == {"epochs", "train_batch", "lr", "ema", "seed", "compute"}


def test_a_model_that_is_named_is_loaded_and_nothing_is_trained(cfg, model, tmp_path):
    model[0].save_pretrained(tmp_path / "mine" / "unet")
    model[1].save_pretrained(tmp_path / "mine" / "scheduler")
    unet, scheduler = methods.diffusion_model(dataclasses.replace(cfg, diffusion=str(tmp_path / "mine")), FEW)
    assert all(torch.equal(a, b) for a, b in zip(model[0].state_dict().values(), unet.state_dict().values()))
    assert scheduler.config.beta_schedule == "linear" and weights(cfg) == []


def test_published_weights_that_are_missing_are_asked_for_in_the_checkpoints_of_the_kits_root(cfg, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/checkpoints/cifar10_uncond.*download.*210 MB"):
        methods.diffusion_model(dataclasses.replace(cfg, diffusion="cifar10_uncond_50M_500K.pt"), FEW)


def test_a_size_without_a_unet_is_refused_with_the_sizes_there_are(cfg):
    large = dataclasses.replace(DIGITS, image_shape=(3, 224, 224))
    with pytest.raises(ValueError, match=r"diffusion = 'train'.*\(3, 224, 224\).*\(1, 8, 8\)"):
        methods.diffusion_model(cfg, large)


@pytest.mark.parametrize(("text", "shape"), [(text, shape) for text, shapes in UNETS.items() for shape in shapes])
def test_every_unet_fits_the_images_that_it_is_listed_for(text, shape):
    assert text in names.of_any(names.TRAINED)
    with torch.device("meta"):
        assert UNETS[text][shape]()(torch.empty(2, *shape), torch.empty(2)).sample.shape == (2, *shape)


def test_a_certificate_is_refused_where_the_noise_drawn_is_not_the_sigma_claimed(cfg, model):
    base = Denoised(methods.diffusion_denoiser(cfg, model, 0.25), Constant(3)).eval()
    with pytest.raises(ValueError, match=r"sigma = 0.5.*exactly 0.25"):
        SmoothedClassifier(base, 0.5, 10)
    images = DIGITS.test.tensors[0][:2]
    assert (SmoothedClassifier(base, 0.25, 10).certify(images, [0, 1], 10, 20, 0.001).predict == 3).all()


@pytest.mark.parametrize(("steps", "sampler", "evaluations"), [(1, "ddpm", 1), (5, "ddim", 5), (None, "ddpm", 146)])
def test_the_denoiser_takes_the_steps_and_the_sampler_it_is_asked_for(cfg, model, steps, sampler, evaluations):
    denoiser = methods.diffusion_denoiser(cfg, model, 0.25, steps, sampler)
    assert len(denoiser.timesteps) == evaluations and not denoiser.training
    assert type(denoiser.chain).__name__.lower().startswith(sampler)


def test_the_denoisers_of_few_and_of_all_steps_differ_by_name_as_they_differ_in_steps(cfg, model):
    found = {name: len(f.timesteps) for name, f in methods.denoisers_by_steps(cfg, model, 0.25).items()}
    few = {f"{name}, {steps}": steps for name in ("ancestral", "DDIM") for steps in (2, 5, 20)}
    assert found == {"one step": 1, "all steps": 146} | few | {"Lee, 5": 5}
    low = methods.denoisers_by_steps(cfg, model, 0.008)  # t* = 1: there are no five steps down from there
    assert list(low) == ["one step", "all steps", "ancestral, 2", "DDIM, 2"]


def test_images_are_denoised_alike_whatever_the_size_of_a_batch(cfg, model):
    noisy = DIGITS.test.tensors[0][:5] + 0.25
    by_name = {"one step": methods.diffusion_denoiser(cfg, model, 0.25), "none": torch.nn.Identity()}
    made = methods.denoised(dataclasses.replace(cfg, batch_size=2), by_name, noisy)
    assert torch.equal(made["none"], noisy)
    with torch.no_grad():
        assert torch.allclose(made["one step"], by_name["one step"](noisy), atol=1e-5)


def test_the_cost_of_a_certificate_is_an_evaluation_for_each_sample_and_step(cfg, model):
    images, five = DIGITS.test.tensors[0][:2], methods.diffusion_denoiser(cfg, model, 0.25, 5)
    timed = {
        "alone": Constant(3),
        "five": Denoised(five, Constant(3)),
        "no UNet": Denoised(torch.nn.Identity(), Constant(3)),
    }
    cost = methods.cost(dataclasses.replace(cfg, n0=10, n=90), timed, images)
    assert cost["UNet evaluations a certificate"].tolist() == [0, 500, 0]
    assert cost["time / first row"]["alone"] == 1


def test_a_little_training_behind_the_diffusion_model_leaves_the_clean_classifier_as_it_was(cfg, model):
    earlier = dataclasses.replace(methods.baseline_parameters(cfg), epochs=1)
    unet = (model[0].requires_grad_(False), model[1])
    base = Denoised(methods.diffusion_denoiser(cfg, unet, 0.5), methods.clean_classifier(earlier, FEW))
    before = identity(base)
    cfg = dataclasses.replace(cfg, fine_tuned=2)
    behind = methods.trained_behind(cfg, earlier, FEW, base)
    assert list(behind) == ["fine-tuned", "DiffSmooth"] and identity(base) == before
    hashes = {identity(f) for f in (base, *behind.values())}
    assert len(hashes) == 3
    trained = len(weights(cfg))
    again = methods.trained_behind(cfg, earlier, FEW, base)
    assert {identity(f) for f in (base, *again.values())} == hashes and len(weights(cfg)) == trained
    for f in behind.values():
        with pytest.raises(ValueError, match=r"0\.5"):  # the outer noise is the one that may be certified
            SmoothedClassifier(f, 0.25, 10)
    cost = methods.cost(dataclasses.replace(cfg, n0=10, n=90), behind, FEW.train[:2][0])
    assert cost.iloc[:, 0].tolist() == [100, 100]  # a denoising a sample, however many copies are made of it


@pytest.mark.parametrize("left_out", [{"fine_tuned": 0}, {"baselines": "", "classifier": "timm:resnet18"}])
def test_nothing_is_trained_behind_it_where_the_parameters_say_so(cfg, left_out):
    assert methods.trained_behind(dataclasses.replace(cfg, **left_out), None, FEW, None) == {}


def test_the_fraction_between_two_timesteps_is_told_where_the_parameters_say_so(cfg, model):
    fraction = methods.diffusion_denoiser(dataclasses.replace(cfg, timestep="fractional"), model, 0.25).timesteps[0]
    assert 144 < fraction < 145 == methods.diffusion_denoiser(cfg, model, 0.25).timesteps[0]


def test_the_noise_level_of_the_comparison_must_be_one_of_those_certified():
    with pytest.raises(ValueError, match=r"compared = 0.3.*sigmas = \[0.25, 0.5\]"):
        DiffusionDenoising(compared=0.3)


def test_a_run_without_other_methods_must_name_its_classifier():
    with pytest.raises(ValueError, match="classifier = ''"):
        DiffusionDenoising(baselines="")
    assert DiffusionDenoising(baselines="", classifier="timm:resnet18").baselines == ""


def test_the_other_methods_are_set_as_notebook_02_sets_them_on_this_runs_images():
    earlier = methods.baseline_parameters(
        DiffusionDenoising(baselines="digits", run_dir="runs/other", seed=7, images=3)
    )
    assert (earlier.run_dir, earlier.seed, earlier.images) == ("runs/other", 7, 3)
    theirs = DenoisedSmoothing(**load_profile("digits", "02_denoised_smoothing"))
    assert {**dataclasses.asdict(earlier), **COMMON} == {**dataclasses.asdict(theirs), **COMMON}
