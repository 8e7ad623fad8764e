"""Ensembles: how members become one f, what consensus saves, that no certificate fails; and DRT, which trains them."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import nn
from torch.utils.data import TensorDataset
from toys import Linear, hyperplane

from lib.bounds import AtRadii, Certificate, Rounds, lower_confidence_bound
from lib.models.ensembles import AGGREGATIONS, Consensus, Ensemble, variance_share
from lib.sampling import Gaussian, class_counts
from lib.smoothing import SmoothedClassifier
from lib.training import Recipe, train
from lib.training.objectives import DRT, GaussianCopies, Step
from lib.training.objectives.drt import alignment, margin

IMAGES = torch.rand(16, 1, 3, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 3
SIGMA = 0.5


class Says(nn.Module):
    """The same logits for every image."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor([float(logit) for logit in logits])
        self.training = False

    def forward(self, images):
        return self.logits.expand(len(images), -1)


def member(seed, classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Flatten(), nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, classes)
        return nn.Sequential(*layers).eval()


def members(count):
    return [member(seed) for seed in range(count)]


# ---- one f of several ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aggregation", "answer"),
    [("logits", [1, 2 / 3]), ("votes", [1 / 3, 2 / 3]), ("softmax", [0.4968, 0.5032]), ("max-margin", [3, 0])],
)
def test_aggregations_by_hand(aggregation, answer):
    three = [Says(3, 0), Says(0, 1), Says(0, 1)]
    assert Ensemble(three, aggregation)(IMAGES)[5].tolist() == pytest.approx(answer, abs=1e-4)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_an_ensemble_of_one_network_answers_as_it_does_however_often_it_is_there(aggregation):
    alone = class_counts(member(0), IMAGES, None, 200, sigma=SIGMA, num_classes=3)
    for count in (1, 4):
        f = Ensemble([member(0)] * count, aggregation)
        assert torch.equal(class_counts(f, IMAGES, None, 200, sigma=SIGMA, num_classes=3), alone)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_an_ensemble_does_not_mix_images(aggregation):
    f, order = Ensemble(members(3), aggregation), torch.randperm(16)
    assert torch.allclose(f(IMAGES)[order], f(IMAGES[order]), atol=1e-6)


def test_an_ensemble_is_in_eval_mode_where_its_members_are():
    assert not Ensemble(members(2)).training and Ensemble([member(0), member(1).train()]).training


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8, 1.0])
def test_the_variance_of_the_mean_of_correlated_margins(correlation):
    expected = {0.0: 0.1, 0.5: 0.55, 0.8: 0.82, 1.0: 1.0}[correlation]
    assert variance_share(10, correlation) == pytest.approx(expected) and variance_share(1, correlation) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ensemble([]), "members must be at least one"),
        (lambda: Ensemble(members(1), "mean"), "aggregation must be one of logits, votes, softmax, max-margin"),
        (lambda: Consensus(members(2), 3), "first must be a whole number >= 1 and below 3"),
        (lambda: Consensus(members(2), 0), "first must be a whole number"),
    ],
)
def test_what_is_no_ensemble_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- consensus -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [*itertools.product((0, 1, 2), repeat=3)])
@pytest.mark.parametrize("first", [1, 2, 3])
def test_consensus_is_the_answer_of_the_first_where_they_agree_and_the_sum_of_all_elsewhere(answers, first):
    weights = (1.0, 1.5, 3.0)  # of different sureness, so that no sum is a tie
    three = [Says(*(w * F.one_hot(torch.tensor(a), 3)).tolist()) for a, w in zip(answers, weights, strict=True)]
    agree = len(set(answers[:first])) == 1
    expected = answers[0] if agree else sum(m.logits for m in three).argmax().item()
    f = Consensus(three, first)
    assert (f(IMAGES).argmax(1) == expected).all() and (f.agrees(IMAGES) == agree).all()


def test_consensus_of_one_is_the_first_member_and_of_mixed_images_each_gets_its_own():
    f = Consensus(members(4), 2)
    whole, first = Ensemble(members(4))(IMAGES), member(0)(IMAGES)
    expected = torch.where(f.agrees(IMAGES), first.argmax(1), whole.argmax(1))
    assert torch.equal(f(IMAGES).argmax(1), expected) and 0 < f.agrees(IMAGES).sum() < 16
    assert torch.equal(Consensus(members(4), 1)(IMAGES), first)


def test_the_other_members_see_only_the_images_on_which_the_first_disagree():
    f, seen = Consensus(members(3), 2), []
    f.members[2].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    f(IMAGES)
    assert seen == [int((~f.agrees(IMAGES)).sum())]


# ---- certificates are attacked ---------------------------------------------------------------------------------


def certified(f, images, n=2000):
    return SmoothedClassifier(f, 0.25, 2).certify(images, n0=20, n=n, alpha=0.001)


def many(count=1000):
    return torch.rand(count, 1, 3, 4, generator=torch.Generator().manual_seed(3))


def test_no_ensemble_of_linear_members_is_certified_beyond_its_hyperplane():
    planes = [hyperplane(seed) for seed in range(3)]
    mean = Linear(sum(p.w for p in planes) / 3, sum(p.b for p in planes) / 3)
    distance, found = mean.distance(many()).double().numpy(), certified(Ensemble(planes).eval(), many())
    wrong = (found.predict >= 0) & ((found.predict != (distance > 0)) | (found.radius > np.abs(distance)))
    assert wrong.sum() <= 6 and (found.predict >= 0).mean() > 0.5  # 1 is expected of 1000; more than 6: 1e-4


@pytest.mark.parametrize("offsets", [(0.3, -0.2, 0.1), (0.1, -0.1, 3.0), (0.1, -0.1, -3.0)])
def test_no_consensus_is_certified_beyond_its_threshold(offsets):
    """Members that share a direction: between two thresholds the third decides, so f has one threshold of its own."""
    w = hyperplane().w
    three = [Linear(w, hyperplane().b + offset).eval() for offset in offsets]
    low, high = sorted(offsets[:2])
    threshold = Linear(w, hyperplane().b + float(np.clip(np.mean(offsets), low, high)))
    distance, found = threshold.distance(many()).double().numpy(), certified(Consensus(three, 2), many())
    wrong = (found.predict >= 0) & ((found.predict != (distance > 0)) | (found.radius > np.abs(distance)))
    assert wrong.sum() <= 6 and (found.predict >= 0).mean() > 0.5


# ---- rounds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "looks"), [(200_000, [1000, 11_000, 136_000, 200_000]), (5000, [1000, 5000]), (9, [9])])
def test_rounds_look_after_the_papers_sizes_and_at_the_cap(n, looks):
    assert list(Rounds(radii=(0.5,)).looks(n)) == looks


@pytest.mark.parametrize("sizes", [(), (0,), (1.5,), "1000", 1000])
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes must be"):
        Rounds(radii=(0.5,), sizes=sizes)


def test_rounds_settle_what_at_radii_settles():
    votes, how = np.arange(0, 1001, 50), [Certificate.of(10, 10_000, 0.001, r(radii=(0.5,))) for r in (Rounds, AtRadii)]
    settled = [h.rule.settled(votes, 1000 - votes, 1000, h, Gaussian(1.0)) for h in how]
    assert np.array_equal(*settled) and 0 < settled[0].sum() < len(votes)


def test_rounds_certify_no_more_often_than_alpha_where_nothing_is_to_be_certified():
    rule, random, p0 = Rounds(radii=(0.5,), sizes=(50, 200)), np.random.default_rng(0), norm.cdf(0.5)
    how = Certificate.of(1, 1000, 0.05, rule)
    steps = np.diff([0, *rule.looks(1000)])
    votes = random.binomial(steps, p0, (4000, len(steps))).cumsum(1)
    radii = np.stack([how.radius(v, n - v, n, Gaussian(1.0)) for v, n in zip(votes.T, steps.cumsum(), strict=True)])
    assert 0 < (radii >= 0.5).any(0).mean() <= 0.05
    assert lower_confidence_bound(950, 1000, 0.05) > p0  # it is not the size of the sample that keeps them from it


# ---- DRT -------------------------------------------------------------------------------------------------------


def step(seed=1, **where):
    return Step(torch.Generator().manual_seed(seed), **where)


class Plane(nn.Module):
    """Logits (<w, x>, 0)."""

    def __init__(self, *w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, images):
        score = images.flatten(1) @ self.w
        return torch.stack([score, 0 * score], 1)


POINT, FIRST = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2), torch.tensor([0])


def cross_entropies(*planes):
    return sum(F.cross_entropy(plane(POINT), FIRST) for plane in planes).item()


def test_drt_of_two_linear_members_by_hand():
    pair = Plane(1.0, 0.0), Plane(0.5, 1.0)
    assert [margin(plane(POINT)).item() for plane in pair] == pytest.approx([0.4621172, 0.2449187], abs=1e-6)
    gradients = [torch.tensor([[0.3932239, 0]]), torch.tensor([[0.2350037, 0.4700074]])]
    assert alignment(gradients, torch.ones(2, 1, dtype=torch.bool)).item() == pytest.approx(0.6155769, abs=1e-6)
    loss = DRT(0.0, diversity=2.0, confidence=3.0)(Ensemble(pair), POINT, FIRST, step())
    expected = cross_entropies(*pair) + 2 * 0.6155769 - 3 * 0.3535179
    assert loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("second", "square"), [((1.0, 0.0), 4 * 0.3932239**2), ((-1.0, 0.0), None)])
def test_equal_members_pay_four_times_their_gradient_and_wrong_ones_do_not_count(second, square):
    pair = Plane(1.0, 0.0), Plane(*second)
    loss = DRT(0.0, diversity=1.0, confidence=0.0)(Ensemble(pair), POINT, FIRST, step()).item()
    assert loss - cross_entropies(*pair) == pytest.approx(square or 0.0, abs=1e-6)


def test_opposite_gradients_cost_nothing():
    one = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert alignment([one, -one], torch.ones(2, 5, dtype=torch.bool)) == 0


def test_without_weights_drt_is_the_sum_of_the_members_losses_on_one_noise():
    f = Ensemble(members(3))
    loss = DRT(SIGMA, 0.0, 0.0, copies=2)(f, IMAGES, LABELS, step())
    alone = sum(GaussianCopies(SIGMA, 2)(m, IMAGES, LABELS, step()) for m in f.members)
    assert loss.item() == pytest.approx(alone.item(), rel=1e-6)


def test_drt_does_not_mix_images_nor_pair_them_with_other_labels():
    """With frozen statistics, the mean over images of the losses of each alone; every one right, so that all count."""
    f = Ensemble(members(2))
    right = [i for i in range(16) if f.members[0](IMAGES)[i].argmax() == f.members[1](IMAGES)[i].argmax()]
    images = IMAGES[right]
    labels = f.members[0](images).argmax(1)
    loss = DRT(0.0, 1.0, 1.0, copies=2)
    each = [loss(f, images[i : i + 1], labels[i : i + 1], step()).item() for i in range(len(right))]
    assert loss(f, images, labels, step()).item() == pytest.approx(np.mean(each), rel=1e-5) and len(right) > 3
    order = torch.randperm(len(right), generator=torch.Generator().manual_seed(1))
    permuted = loss(f, images[order], labels[order], step()).item()
    assert permuted == pytest.approx(loss(f, images, labels, step()).item(), rel=1e-5)


def test_drt_draws_from_the_generator_alone_and_asks_each_member_once():
    f, calls = Ensemble(members(3)), []
    for m in f.members:
        m.register_forward_hook(lambda module, inputs, output: calls.append(module))
    torch.manual_seed(0)
    first = DRT(SIGMA, 1.0, 1.0)(f, IMAGES, LABELS, step(4))
    torch.manual_seed(1)
    assert first == DRT(SIGMA, 1.0, 1.0)(f, IMAGES, LABELS, step(4)) != DRT(SIGMA, 1.0, 1.0)(f, IMAGES, LABELS, step(5))
    assert len(calls) == 9
    assert all(p.grad is None for p in f.parameters())


def test_drt_trains_an_ensemble_to_be_surer_and_more_diverse(tmp_path):
    x = torch.rand(256, 1, 3, 4, generator=torch.Generator().manual_seed(5))
    y = (hyperplane().distance(x) > 0).long()

    def trained(*weights):
        recipe = Recipe(DRT(0.1, *weights), "members", epochs=15, batch_size=64, lr=0.1, schedule="cosine")
        build = lambda: Ensemble([nn.Sequential(nn.Flatten(), nn.Linear(12, 2)) for _ in range(2)])  # noqa: E731
        return train(recipe, build, TensorDataset(x, y), tmp_path)

    plain, drt = trained(0.0, 0.0), trained(4.0, 0.0)
    weights = [torch.stack([m[1].weight[1] - m[1].weight[0] for m in f.members]) for f in (plain, drt)]
    assert (weights[1].sum(0).norm() < weights[0].sum(0).norm()).item()
    assert ((plain(x).argmax(1) == y).float().mean() > 0.9).item()
