"""ACES: the selection, the rule that composes certificates, and attacks on what comes out; several noise levels."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from torch import nn
from toys import Linear, hyperplane

from lib.bounds import ABSTAIN, composed, multiscale
from lib.models.composition import EntropySelection, LearnedSelection, normalised_entropy
from lib.records import composed_log
from lib.sampling import class_counts
from lib.smoothing import SmoothedClassifier

IMAGES = torch.rand(1000, 1, 3, 4, generator=torch.Generator().manual_seed(0))


# ---- the selection ---------------------------------------------------------------------------------------------


def test_normalised_entropies_by_hand():
    logits = torch.tensor([[2.0, 0, 0], [0, 1.0, 0], [0, 0, 0], [200.0, 0, 0]])
    assert normalised_entropy(logits).tolist() == pytest.approx([0.6058304, 0.8877816, 1, 0], abs=1e-6)


@pytest.mark.parametrize(("threshold", "share"), [(1.0, 1.0), (-1e-9, 0.0), (0.7, 0.5)])
def test_the_threshold_decides_from_always_to_never(threshold, share):
    class Two(nn.Module):
        def forward(self, images):
            return torch.tensor([[2.0, 0, 0], [0, 0, 0]]).repeat(len(images) // 2, 1)

    f = EntropySelection(Two().eval(), threshold)
    assert f(IMAGES).shape == (1000, 3) and (f(IMAGES).argmax(1) == 1).float().mean() == share


def test_the_learned_selection_is_0_where_its_first_output_is_above_the_threshold():
    class Head(nn.Module):
        def forward(self, images):
            return torch.tensor([[0.8, 0.2], [0.4, 0.6]]).log()

    assert LearnedSelection(Head().eval(), 10)(IMAGES[:2]).argmax(1).tolist() == [0, 1]
    assert LearnedSelection(Head().eval(), 10, threshold=0.9)(IMAGES[:2]).argmax(1).tolist() == [1, 1]


def test_selection_and_model_see_the_same_noise():
    """Where the selection is made of the model, the model's sure votes are the selection's votes."""
    f = Linear(hyperplane().w, hyperplane().b).eval()
    counts = class_counts(EntropySelection(f, 0.5), IMAGES[:5], None, 500, sigma=0.25, num_classes=2)
    seen = []
    recorded = class_counts(lambda x: seen.append(x) or f(x), IMAGES[:5], None, 500, sigma=0.25, num_classes=2)
    sure = normalised_entropy(f(torch.cat(seen))) <= 0.5
    assert torch.equal(sure.view(5, -1).sum(1), counts[:, 1]) and recorded.sum() == 2500


# ---- the rule --------------------------------------------------------------------------------------------------


def test_the_rule_of_composition_for_every_case():
    for s, g, h in itertools.product((1, 0, ABSTAIN), (3, 4, ABSTAIN), (3, 5)):
        predict, radius = composed([s], [0.5 if s == 1 else 0.1], [g], [0.4 if g != ABSTAIN else 0.0], [h])
        if s == 1:
            assert (predict[0], radius[0]) == (g, 0.4 if g != ABSTAIN else 0.0)
        elif s == 0:
            assert (predict[0], radius[0]) == (h, 0.0)
        else:  # an undecided selection proves nothing unless both models answer alike
            assert (predict[0], radius[0]) == (h if g == h else ABSTAIN, 0.0)


def test_the_radius_is_the_smaller_one():
    radius = composed([1, 1], [0.3, 0.9], [2, 2], [0.5, 0.5], [0, 0])[1]
    assert radius.tolist() == [0.3, 0.5]


def log(predict, radius, idx=(0, 1, 2)):
    return pd.DataFrame({"idx": idx, "label": [3, 3, 3], "predict": predict, "radius": radius, "alpha": 0.0005})


def test_the_log_of_a_composition_counts_an_undecided_selection_as_wrong_where_the_models_differ():
    got = composed_log(log([1, ABSTAIN, ABSTAIN], [0.4, 0, 0]), log([3, 3, 3], [0.5, 0.5, 0.5]), [7, 7, 3])
    assert got["correct"].tolist() == [True, False, True] and got["radius"].tolist() == [0.4, 0, 0]
    assert (got["alpha"] == 0.001).all()


@pytest.mark.parametrize(("core", "idx"), [([1, 2], (0, 1, 2)), ([1, 2, 3], (0, 1, 3))])
def test_logs_of_other_images_are_refused(core, idx):
    with pytest.raises(ValueError, match=r"must be"):
        composed_log(log([1, 1, 1], [1, 1, 1], idx), log([1, 1, 1], [1, 1, 1]), core)


def test_a_selection_that_is_always_1_leaves_the_model_as_it_was():
    g = SmoothedClassifier(hyperplane(), 0.25, 2).certify(IMAGES[:50], n0=10, n=500, alpha=0.0005)
    always = EntropySelection(hyperplane(), 1.0)
    s = SmoothedClassifier(always, 0.25, 2).certify(IMAGES[:50], n0=10, n=500, alpha=0.0005)
    predict, radius = composed(s.predict, s.radius, g.predict, g.radius, np.zeros(50, int))
    assert np.array_equal(predict, g.predict) and (radius == g.radius).all()


def test_no_composition_is_certified_beyond_the_nearer_of_its_two_hyperplanes():
    """s and g linear: the exact radius is the smaller distance, and an attack just beyond it succeeds."""
    model, select = hyperplane(0), hyperplane(1)
    sure = Linear(select.w, select.b + 0.5).eval()
    s = SmoothedClassifier(sure, 0.25, 2).certify(IMAGES, n0=20, n=2000, alpha=0.0005)
    g = SmoothedClassifier(model, 0.25, 2).certify(IMAGES, n0=20, n=2000, alpha=0.0005)
    core = np.full(1000, 1)
    predict, radius = composed(s.predict, s.radius, g.predict, g.radius, core)
    to_s, to_g = (f.distance(IMAGES).double().numpy() for f in (sure, model))
    truth = np.where(to_s > 0, to_g > 0, core)  # the composition itself: g and s are what their planes say
    answered = predict != ABSTAIN
    exact = np.where(to_s > 0, np.minimum(to_s, np.abs(to_g)), 0)
    wrong = answered & ((predict != truth) | (radius > exact))
    assert wrong.sum() <= 6 and (radius > 0).mean() > 0.2 and (answered & (radius == 0)).mean() > 0.05


# ---- several noise levels --------------------------------------------------------------------------------------

LEVELS = (0.5, 0.25)


def sampled(models, x, n, random):
    """Votes of linear classifiers at both levels, (levels, N): class 1's chance is Phi(distance / sigma)."""
    chosen, first, second = [], [], []
    for f, sigma in zip(models, LEVELS, strict=True):
        p = norm.cdf(f.distance(x).double().numpy() / sigma)
        chosen.append((random.binomial(51, p) > 25).astype(int))
        ones = random.binomial(n, p)
        first.append(np.where(chosen[-1] == 1, ones, n - ones))
        second.append(n - first[-1])
    return chosen, first, second


def test_two_levels_of_two_classes_are_the_larger_one_alone():
    """Of two classes one always has half the votes, so the smaller level is never asked."""
    model, random = hyperplane(0), np.random.default_rng(0)
    chosen, first, second = sampled((model, hyperplane(1)), IMAGES, 2000, random)
    predict, radius = multiscale(LEVELS, chosen, first, second, 2000, 0.001)
    distance = model.distance(IMAGES).double().numpy()
    wrong = (predict != ABSTAIN) & ((predict != (distance > 0)) | (radius > np.abs(distance)))
    assert wrong.sum() <= 6 and (predict != ABSTAIN).mean() > 0.6


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_image_on_which_no_class_has_half_the_votes_goes_to_the_next_level_and_no_attack_beats_its_radius(mirrored):
    """Bands on one pixel: f_1 answers 0, 1, 2 below -a, between, above a; f_2 0 or 2 by the sign, or the other way."""
    a, random, n = 0.3, np.random.default_rng(1), 20_000

    def shares(t):
        wide = norm.cdf([(-a - t) / LEVELS[0], (a - t) / LEVELS[0]])
        narrow = norm.cdf((t if mirrored else -t) / LEVELS[1])
        return np.stack([np.stack([wide[0], wide[1] - wide[0], 1 - wide[1]]), np.stack([narrow, 0 * t, 1 - narrow])])

    def truth(t):
        p = shares(t)
        return np.where(p[0].max(0) > 0.5, p[0].argmax(0), np.where(p[1].max(0) > 0.5, p[1].argmax(0), ABSTAIN))

    t = random.uniform(-1.2, 1.2, 4000)
    p = shares(t).transpose(0, 2, 1)
    chosen = random.multinomial(51, p).argmax(2)
    counts = random.multinomial(n, p)
    first = np.take_along_axis(counts, chosen[..., None], 2)[..., 0]
    np.put_along_axis(counts, chosen[..., None], -1, 2)
    predict, radius = multiscale(LEVELS, chosen, first, counts.max(2), n, 0.001)
    certified = radius > 0
    next_level = certified & (shares(t)[0].max(0) <= 0.5)
    found = np.zeros(len(t), bool)
    for share in np.linspace(-1, 1, 41):  # the classifiers see one pixel, so an attack along it is the strongest
        found |= certified & (truth(t + share * radius * (1 - 1e-9)) != predict)
    assert found.sum() <= 10 and certified.mean() > 0.5 and next_level.sum() > 200


def test_one_level_is_the_certificate_of_cohen():
    how = SmoothedClassifier(hyperplane(), 0.25, 2).certify(IMAGES[:50], n0=20, n=500, alpha=0.001)
    predict, radius = multiscale([0.25], [how.selected], [how.n_a], [how.n_b], 500, 0.001)
    assert np.array_equal(predict, how.predict) and radius == pytest.approx(how.radius, rel=1e-12)


@pytest.mark.parametrize("sigmas", [(0.25, 0.5), (0.5, 0.5), (0.5, 0.0)])
def test_levels_that_do_not_fall_are_refused(sigmas):
    with pytest.raises(ValueError, match="sigma"):
        multiscale(sigmas, [[0], [0]], [[1], [1]], [[0], [0]], 10, 0.1)
