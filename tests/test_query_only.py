"""Notebook 06: denoisers for photographs, what a blend is, and how many queries a question takes."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from lib import methods, tables
from lib.bounds import certified_radius, lower_confidence_bound
from lib.config import QueryOnly
from lib.datasets import Data
from lib.models import Blended, Denoised, TotalVariation, build_denoiser
from lib.runner.inputs import PACKAGED, check_inputs

BRIEF = "1 epochs of 4, adam 1e-3"


def pictures(count, side=64, seed=0):
    """Smooth random pictures: a coarse grid of colours, enlarged."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")


@pytest.fixture
def data():
    images, labels = pictures(12), torch.arange(12) % 3
    train = TensorDataset(images, labels)
    return Data("shapes", train, TensorDataset(images[:4], labels[:4]), 3, ("a", "b", "c"), (3, 64, 64),
                (0.5,) * 3, (0.5,) * 3, "shapes")  # fmt: skip


@pytest.fixture
def cfg(tmp_path):
    return QueryOnly(
        dataset="folder", run_dir=str(tmp_path), patches=8, mse=BRIEF, stab=BRIEF, blends=(0.0, 0.5, 1.0), batch_size=4
    )


class Colour(nn.Module):
    """The class is the strongest colour."""

    def forward(self, images):
        return images.mean((2, 3))


def test_the_unet_restores_shapes_of_any_size_that_8_divides_and_refuses_others():
    network = build_denoiser("photo_unet").eval()
    for height, width in ((8, 8), (16, 40), (224, 224)):
        assert network(torch.rand(2, 3, height, width)).shape == (2, 3, height, width)
    with pytest.raises(ValueError, match=r"photo_unet takes sides that 8 divides; got images of \(12, 16\)"):
        network(torch.rand(1, 3, 12, 16))


def test_a_short_training_of_the_unet_takes_noise_away(cfg, data):
    longer = dataclasses.replace(cfg, mse="60 epochs of 4, adam 3e-3")
    restored = methods.picture_denoisers(longer, data, Colour().eval())["MSE"]
    noise = 0.25 * torch.randn(12, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    clean = pictures(12)
    assert (restored(clean + noise) - clean).square().mean() < 0.2 * noise.square().mean()


def test_total_variation_is_scikit_images_and_restores_a_flat_picture():
    pytest.importorskip("skimage", reason="needs the extra photos")
    flat = torch.full((2, 3, 16, 16), 0.5)
    noisy = flat + 0.2 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    restored = TotalVariation(0.5, steps=50)(noisy)
    assert restored.dtype == noisy.dtype and (restored - flat).abs().max() < 0.1 < (noisy - flat).abs().max()
    assert torch.equal(TotalVariation(0.5, steps=50)(noisy[1:]), restored[1:]), "no image depends on the others"


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_blend_lies_between_the_denoised_and_the_noisy_picture(share):
    half = nn.Sequential(nn.AvgPool2d(3, 1, 1)).eval()
    noisy = torch.rand(2, 3, 8, 8)
    assert torch.allclose(Blended(half, share)(noisy), (1 - share) * half(noisy) + share * noisy)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_and_1_is_refused(share):
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\]"):
        Blended(nn.Identity(), share)


def test_denoisers_are_trained_once_and_the_classifier_stays_as_it_is(cfg, data):
    f = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3)).eval().requires_grad_(False)
    before = {name: value.clone() for name, value in f.state_dict().items()}
    first = methods.picture_denoisers(cfg, data, f)
    files = sorted(cfg.run_path.glob("weights/*.safetensors"))
    again = methods.picture_denoisers(cfg, data, f)
    assert len(files) == 2 and sorted(cfg.run_path.glob("weights/*.safetensors")) == files
    for name, denoiser in first.items():
        assert all(torch.equal(a, b) for a, b in zip(denoiser.parameters(), again[name].parameters()))
    assert all(torch.equal(f.state_dict()[name], value) for name, value in before.items())


def test_kept_answers_of_the_whole_noisy_picture_are_those_without_a_denoiser(cfg, data):
    class Nothing(nn.Module):
        def forward(self, images):
            return images

    f = Colour().eval()
    kept = methods.kept_answers(cfg, data, f, Nothing().eval())
    assert kept.index.tolist() == [0.0, 0.5, 1.0] and kept.nunique() == 1 and 0.5 < kept.iloc[0] <= 1

    class Swapped(nn.Module):
        def forward(self, images):
            return 1 - images

    ruined = methods.kept_answers(cfg, data, f, Swapped().eval())
    assert ruined[1.0] == kept[1.0] and ruined[0.0] < 0.5 * kept[0.0]


def log_of(*shares, n=1000):
    return pd.DataFrame({"n_a": [round(share * n) for share in shares], "n_b": [0] * len(shares), "n": n})


def test_a_fixed_n_takes_n0_and_n_and_certifies_as_often_as_the_binomial_law_says(cfg):
    taken, reached = methods.queries_taken(cfg, log_of(*[0.9] * 50), 0.1, n=100)
    votes = np.arange(101)
    enough = certified_radius(lower_confidence_bound(votes, 100, cfg.alpha), cfg.sigma) >= 0.1
    from scipy import stats

    assert taken == cfg.n0 + 100
    assert reached == pytest.approx(stats.binom.pmf(votes[enough], 100, 0.9).sum(), abs=0.02)


@pytest.mark.parametrize("two_class", [False, True])
def test_looking_at_the_votes_takes_fewer_queries_and_never_more_than_n(two_class, cfg):
    clear, hopeless = log_of(1.0), log_of(0.05)
    for log in (clear, hopeless):
        taken, reached = methods.queries_taken(cfg, log, 0.1, n=100, every=10, two_class=two_class)
        assert cfg.n0 + 10 <= taken < cfg.n0 + 100
        assert reached == (log is clear)
    taken, _ = methods.queries_taken(cfg, log_of(0.7), 0.1, n=100, every=30, two_class=two_class)
    assert taken <= cfg.n0 + 100


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "digits"}, "classifier = 'lite0': it knows ImageNet's classes, not dataset = 'digits'"),
        ({"dataset": "digits", "classifier": "timm:resnet18", "denoiser": "photo_unet"}, "denoiser = 'photo_unet'"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_starts(values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        check_inputs(QueryOnly(**{"run_dir": str(tmp_path), **values}))


def test_a_package_that_is_missing_is_named_before_anything_starts(monkeypatch, tmp_path):
    for name in PACKAGED:
        monkeypatch.setitem(PACKAGED, name, ("some-package", "no_such_module"))
        with pytest.raises(ValueError, match=rf"{name}.*comes with the package some-package; pip install"):
            check_inputs(QueryOnly(run_dir=str(tmp_path)))
        monkeypatch.undo()


def test_photographs_are_for_this_notebook_alone(tmp_path):
    from lib.config import NOTEBOOKS

    for config in NOTEBOOKS.values():
        if config is not QueryOnly:
            with pytest.raises(ValueError, match="they are for 06_query_only"):
                check_inputs(config(dataset="photographs", run_dir=str(tmp_path)))


def test_a_denoised_blend_in_front_of_a_classifier_is_one_fixed_function(cfg, data):
    f = Denoised(Blended(build_denoiser("photo_unet").eval(), 0.3), Colour()).eval()
    log = methods.certified(cfg, data, f, cfg.sigma, "06_blend", range(4))
    assert log.equals(methods.certified(cfg, data, f, cfg.sigma, "06_blend", range(4)))


def test_a_budget_that_cannot_suffice_is_refused_with_the_number_that_does(cfg):
    needed = (cfg.asked + 1) * (cfg.n0 + cfg.n)
    dataclasses.replace(cfg, queries=needed)
    with pytest.raises(ValueError, match=f"queries = {needed - 1}: .* write queries {needed}"):
        dataclasses.replace(cfg, queries=needed - 1)


def test_a_log_held_against_other_answers_keeps_its_votes_and_radii():
    log = pd.DataFrame({"idx": [3, 5, 8], "label": [0, 1, 2], "predict": [0, 2, -1], "radius": [0.1, 0.2, 0.0]})
    log["correct"] = [1, 0, 0]
    other = tables.held_against(log, {3: 1, 5: 2, 8: 0, 9: 9})
    assert other["correct"].tolist() == [0, 1, 0] and other["label"].tolist() == [1, 2, 0]
    assert other["radius"].equals(log["radius"]) and log["correct"].tolist() == [1, 0, 0]
    with pytest.raises(KeyError):
        tables.held_against(log, {3: 1})
