"""The losses of the papers on noisy copies: values by hand, limits, and that images, modes and draws do not mix."""

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset
from toys import hyperplane

from lib.attacks import ddn
from lib.attacks.ddn import step_lengths
from lib.sampling import class_counts
from lib.training import Recipe, train
from lib.training.objectives import (
    CATRS,
    MACER,
    Consistency,
    Gaussian,
    GaussianCopies,
    SmoothAdv,
    SmoothAdvDDN,
    SmoothMix,
    StabilityTraining,
    Step,
)
from lib.training.objectives.catrs import divergences, restored, smallest
from lib.training.objectives.consistency import disagreement
from lib.training.objectives.copies import evaluating, noise_of_copies, warmed_up
from lib.training.objectives.macer import radius_loss
from lib.training.objectives.smoothmix import mixing_loss

N, SIGMA = 16, 0.5
IMAGES = 0.1 + 0.8 * torch.rand(N, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(N) % 3
SOFT = torch.rand(N, 3, generator=torch.Generator().manual_seed(1)).softmax(1)
NUMBERS = torch.arange(N)

METHODS = {
    "GaussianCopies": GaussianCopies(SIGMA, 3),
    "SmoothAdv": SmoothAdv(SIGMA, 0.5, steps=2, copies=3, warm_up=1),
    "SmoothAdvDDN": SmoothAdvDDN(SIGMA, 0.5, steps=4, copies=3, warm_up=1),
    "Consistency": Consistency(SIGMA, copies=3),
    "MACER": MACER(SIGMA, copies=3, beta=2.0),
    "SmoothMix": SmoothMix(SIGMA, 0.5, steps=2, copies=3, warm_up=1),
    "SmoothMix, one step": SmoothMix(SIGMA, 0.5, steps=2, copies=3, one_step=True, warm_up=2),
    "StabilityTraining": StabilityTraining(SIGMA),
    "CATRS": CATRS(SIGMA, LABELS, SOFT, copies=3, epsilon=0.5),
}
PASSES = {"SmoothMix": 2, "SmoothMix, one step": 2, "StabilityTraining": 2, "CATRS": 2}  # in training mode; else 1
COPIES = 3


def step(seed=1, **where):
    return Step(torch.Generator().manual_seed(seed), **where)


def network(classes=3):
    """A classifier of 1 x 3 x 4 images with BatchNorm, in eval mode, float64."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = nn.Flatten(), nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, classes)
        return nn.Sequential(*layers).eval().double()


def labels_of(name, rows=NUMBERS):
    """Those of the data set that the method trains on: CAT-RS's are the numbers of the images."""
    return NUMBERS[rows] if name == "CATRS" else LABELS[rows]


def scripted(*answers):
    """A network that gives these logits, one tensor a call; an attack finds no way uphill."""
    left = [torch.tensor(answer, dtype=torch.float64) for answer in answers]
    return lambda x: left.pop(0) + 0 * x.sum()


ONE, FIRST = torch.full((1, 1, 3, 4), 0.5, dtype=torch.float64), torch.tensor([0])
TWO_COPIES = [[2.0, 0, 0], [0, 1.0, 0]]


# ---- values by hand --------------------------------------------------------------------------------------------


def test_consistency_of_two_copies_by_hand():
    divergence, entropy = disagreement(torch.tensor(TWO_COPIES), 1)
    assert (divergence.item(), entropy.item()) == pytest.approx((0.2191757, 1.0061993), abs=1e-6)
    loss = Consistency(SIGMA, lam=10.0, eta=0.5)(scripted(TWO_COPIES), ONE, FIRST, step())
    assert loss.item() == pytest.approx(0.8954947 + 2.6948566, abs=1e-6)


def test_stability_training_by_hand():
    model = scripted([[2.0, 0, 0]], [[0, 1.0, 0]])  # clean, then noisy
    assert StabilityTraining(SIGMA, lam=2.0)(model, ONE, FIRST, step()).item() == pytest.approx(3.1294202, abs=1e-6)


def test_macer_of_two_copies_by_hand():
    logits = [[0.2, 0, 0], [0.1, 0, 0]]
    radius = radius_loss(torch.tensor(logits), FIRST, 0.25, 16.0, 8.0)
    assert radius.item() == pytest.approx((8 - 2.2457339) * 0.25 / 2, abs=1e-6)
    loss = MACER(0.25, copies=2)(scripted(logits), ONE, FIRST, step())
    assert loss.item() == pytest.approx(1.0009428 + 12 * 0.7192833, abs=1e-5)


def test_smoothmix_of_two_copies_by_hand(monkeypatch):
    mixed = [[1.0, 0, 0], [0, 0, 0]]
    tensors = torch.tensor(TWO_COPIES), torch.tensor(mixed), FIRST, torch.tensor([0.25])
    assert mixing_loss(*tensors).mean().item() == pytest.approx(0.0481156, abs=1e-6)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, 0.5))
    model = scripted(TWO_COPIES, TWO_COPIES, mixed)  # the attack's one step, then the two passes of training
    loss = SmoothMix(SIGMA, 0.5, steps=1, warm_up=1)(model, ONE, FIRST, step())
    assert loss.item() == pytest.approx(1.1360726, abs=1e-6)


def test_catrs_by_hand():
    assert smallest(torch.tensor([[0.2, 1.5, 0.7, 3.0]]), torch.tensor([2])).item() == pytest.approx(0.225)
    found = divergences(torch.tensor(TWO_COPIES), torch.tensor([[0.9, 0.1, 0]]))
    assert found.tolist() == pytest.approx([0.1144618, 1.1263617], abs=1e-6)
    sure, away = [[5.0, 0, 0], [5.0, 0, 0]], [[2.0, 0, 0], [0, 1.0, 0]]
    method = CATRS(SIGMA, FIRST, torch.tensor([[0.9, 0.1, 0]]), copies=2, steps=1, lam=2.0)
    expected = F.cross_entropy(torch.tensor(sure), torch.zeros(2, dtype=torch.long)).item() + 2 * 1.1263617
    assert method(scripted(sure, sure, away), ONE, FIRST, step()).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["GaussianCopies", "SmoothAdv", "SmoothAdvDDN"])
def test_the_loss_of_a_network_that_knows_nothing_is_the_logarithm_of_the_classes(name):
    loss = METHODS[name](lambda x: 0 * x.flatten(1)[:, :3], IMAGES, LABELS, step())
    assert loss.item() == pytest.approx(math.log(3))


# ---- limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        SmoothAdv(SIGMA, 0.0, steps=3, copies=COPIES),
        SmoothAdvDDN(SIGMA, 0.0, steps=3, copies=COPIES),
        Consistency(SIGMA, copies=COPIES, lam=0.0, eta=0.0),
        SmoothMix(SIGMA, 0.5, copies=COPIES, eta=0.0),
    ],
    ids=lambda method: type(method).__name__,
)
def test_without_its_idea_a_method_is_gaussian_training_with_as_many_copies(method):
    found, plain = (m(network(), IMAGES, LABELS, step()) for m in (method, GaussianCopies(SIGMA, COPIES)))
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=0)


def test_one_copy_is_gaussian_training():
    f = network()
    assert GaussianCopies(SIGMA, 1)(f, IMAGES, LABELS, step()) == Gaussian(SIGMA)(f, IMAGES, LABELS, step())


def test_copies_without_noise_are_ordinary_training():
    expected = F.cross_entropy(network()(IMAGES), LABELS)
    torch.testing.assert_close(GaussianCopies(0.0, COPIES)(network(), IMAGES, LABELS, step()), expected)


def test_macer_without_the_radius_is_below_the_mean_cross_entropy_and_equal_for_one_copy():
    losses = {m: (MACER(SIGMA, copies=m, lam=0.0)(network(), IMAGES, LABELS, step()),
                  GaussianCopies(SIGMA, m)(network(), IMAGES, LABELS, step())) for m in (1, 5)}  # fmt: skip
    assert losses[1][0].item() == pytest.approx(losses[1][1].item()) and losses[5][0] < losses[5][1] - 1e-3


def test_macers_radius_joins_the_loss_in_its_epoch():
    late = MACER(SIGMA, copies=2, lam_from=2)
    losses = [late(network(), IMAGES, LABELS, step(epoch=epoch)) for epoch in (1, 2)]
    assert losses[0] == MACER(SIGMA, copies=2, lam=0.0)(network(), IMAGES, LABELS, step(epoch=1))
    assert losses[1] == MACER(SIGMA, copies=2)(network(), IMAGES, LABELS, step(epoch=2))


def test_stability_training_without_weight_is_clean_training_and_without_noise_adds_the_entropy():
    logits = network()(IMAGES)
    clean, p = F.cross_entropy(logits, LABELS), logits.softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    for method, expected in ((StabilityTraining(SIGMA, 0.0), clean), (StabilityTraining(0.0), clean + 2 * entropy)):
        torch.testing.assert_close(method(network(), IMAGES, LABELS, step()), expected)


def test_smoothmix_without_a_step_mixes_the_image_with_itself():
    """t is then (1 - l) pbar + l / K and the noise the same, so that only the smoothing of the target is left."""
    method, f = SmoothMix(SIGMA, 0.0, copies=COPIES, warm_up=1), network()
    logits = f(IMAGES.repeat_interleave(COPIES, 0) + noise_of_copies(IMAGES, COPIES, SIGMA, at := step()))
    share = torch.rand(N, generator=at.generator) / 2
    expected = F.cross_entropy(logits, LABELS.repeat_interleave(COPIES))
    expected = expected + 5 * mixing_loss(logits, logits, LABELS, share).mean()
    torch.testing.assert_close(method(f, IMAGES, LABELS, step()), expected)


def right(x):
    """A network of 3 classes that says 0 surely, whatever the noise, with a gradient."""
    return torch.stack([30 + 0.01 * x.flatten(1).sum(1), 0 * x.flatten(1).sum(1), 0 * x.flatten(1).sum(1)], 1)


def test_catrs_where_all_is_right_and_without_weight_is_gaussian_training():
    soft, zeros = F.one_hot(0 * LABELS, 3).float(), 0 * LABELS
    found = CATRS(SIGMA, zeros, soft, copies=COPIES, lam=0.0)(right, IMAGES, NUMBERS, step())
    torch.testing.assert_close(found, GaussianCopies(SIGMA, COPIES)(right, IMAGES, zeros, step()))


def test_catrs_with_sure_labels_and_no_attack_adds_the_largest_cross_entropy():
    """Of a network that is right, or K is not m: one of one pixel that says 0 from far."""
    zeros = 0 * LABELS
    losses = [CATRS(SIGMA, zeros, F.one_hot(zeros, 3).float(), copies=COPIES, epsilon=0.0, lam=lam)(
        right, IMAGES, NUMBERS, step()) for lam in (0.0, 1.0)]  # fmt: skip
    noisy = IMAGES.repeat_interleave(COPIES, 0) + noise_of_copies(IMAGES, COPIES, SIGMA, step())
    each = F.cross_entropy(right(noisy), zeros.repeat_interleave(COPIES), reduction="none").view(N, COPIES)
    torch.testing.assert_close(losses[1] - losses[0], each.amax(1).mean())


def test_catrs_has_the_worst_noise_count_as_often_as_all_draws_succeed():
    """One of two copies is right: K = 2 with probability 1/4."""
    many = 8000
    logits = torch.tensor([[4.0, 0, 0], [0, 4.0, 0]]).repeat(many, 1)
    images, zeros = torch.zeros(many, 1, 1, 1), torch.zeros(many, dtype=torch.long)
    soft = torch.tensor([[1.0, 0, 0]]).expand(many, -1)
    high = F.cross_entropy(logits[1:2], zeros[:1])
    losses = [CATRS(SIGMA, zeros, soft, copies=2, steps=1, lam=lam)(
        lambda x: logits + 0 * x.sum(), images, torch.arange(many), step()) for lam in (0.0, 1.0)]  # fmt: skip
    assert ((losses[1] - losses[0]) / high).item() == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / many))


def test_an_image_that_all_copies_get_wrong_still_trains_on_its_easiest():
    logits = torch.tensor([[0, 1.0, 0], [0, 4.0, 0]])
    method = CATRS(SIGMA, FIRST, torch.tensor([[1.0, 0, 0]]), copies=2, steps=1)
    loss = method(lambda x: logits + 0 * x.sum(), ONE, FIRST, step())
    torch.testing.assert_close(loss, F.cross_entropy(logits[:1], FIRST) / 2, check_dtype=False)


def test_disagreement_is_the_divergence_of_torch_and_none_for_copies_that_are_alike():
    """KL from pbar, without a bound: it is not the Jensen-Shannon divergence, which is to pbar and at most log m."""
    logits = 50 * torch.randn(200 * 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    divergence, entropy = disagreement(logits, 200)
    p = logits.softmax(1).view(200, 4, 6)
    mean = p.mean(1)
    each = [F.kl_div(logits.log_softmax(1).view(200, 4, 6)[:, i], mean, reduction="none").sum(1) for i in range(4)]
    torch.testing.assert_close(divergence, sum(each) / 4)
    torch.testing.assert_close(entropy, torch.distributions.Categorical(mean).entropy())
    assert divergence.max() > math.log(4)
    assert disagreement(logits[::4].repeat_interleave(4, 0), 200)[0].abs().max() < 1e-9


# ---- the certified radius of MACER -----------------------------------------------------------------------------


def test_wrong_images_and_radii_above_gamma_leave_no_trace_and_a_sure_answer_no_nan():
    logits = torch.tensor([[0, 1.0, 0], [0.25, 0, 0], [0.5, 0, 0], [90.0, 0, 0], [0.1, 0, 0]]).requires_grad_()
    losses = radius_loss(logits, torch.zeros(5, dtype=torch.long), 0.25, 16.0, 4.0)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient.isfinite().all()
    assert (losses > 0).tolist() == [False, True, False, False, True]
    assert gradient.abs().sum(1).gt(0).tolist() == [False, True, False, False, True]


def test_half_sigma_xi_is_the_radius_of_the_soft_classifier():
    logits, gamma = torch.tensor([[0.1, 0, 0], [0.3, 0, 0.05]], dtype=torch.float64), 8.0
    q = (16 * logits).softmax(1).mean(0).sort(descending=True).values
    normal = torch.distributions.Normal(0.0, 1.0)
    radius = 0.25 / 2 * (normal.icdf(q[0]) - normal.icdf(q[1]))
    found = radius_loss(logits, FIRST, 0.25, 16.0, gamma)
    assert found.item() == pytest.approx(0.25 / 2 * gamma - radius.item(), abs=1e-6)


# ---- attacks inside --------------------------------------------------------------------------------------------

PLANE = hyperplane()
MIDDLE = 0.35 + 0.3 * torch.rand(40, 1, 3, 4, generator=torch.Generator().manual_seed(4))
SIDES = (PLANE.distance(MIDDLE) > 0).long()
AWAY = ((1 - 2 * SIDES).view(-1, 1) * PLANE.w / PLANE.w.norm()).view(-1, 1, 3, 4)  # the shortest way to the other side


@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize("copies", [1, 4])
def test_smoothadv_moves_a_linear_classifiers_images_straight_to_the_other_side(steps, copies):
    method = SmoothAdv(SIGMA, 0.2, steps=steps, copies=copies, warm_up=1)
    noise = noise_of_copies(MIDDLE, copies, SIGMA, step())
    moved = method.attacked(PLANE, MIDDLE, SIDES, noise, step())
    torch.testing.assert_close(moved, MIDDLE + 0.2 * AWAY, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", [SmoothAdv(0.0, 0.4), SmoothMix(0.0, 0.1, steps=1, one_step=True)])
def test_the_budget_grows_from_epoch_to_epoch_until_the_warm_up_is_over(method):
    method, noise = dataclasses.replace(method, warm_up=4), torch.zeros(40, 1, 3, 4)
    whole = getattr(method, "epsilon", None) or method.alpha
    for epoch, share in ((0, 0.25), (1, 0.5), (3, 1.0), (9, 1.0)):
        found = method.attacked(PLANE, MIDDLE, SIDES, noise, step(epoch=epoch))
        moved = found[0] if isinstance(found, tuple) else found
        assert (moved - MIDDLE).flatten(1).norm(dim=1) == pytest.approx(share * whole * torch.ones(40), abs=1e-5)


def test_the_second_term_of_smoothmix_grows_likewise():
    plain = GaussianCopies(SIGMA, 2)(network(), IMAGES, LABELS, step())
    terms = [
        (SmoothMix(SIGMA, 0.5, warm_up=4)(network(), IMAGES, LABELS, step(epoch=epoch)) - plain).item()
        for epoch in (0, 1, 7)
    ]
    assert terms == pytest.approx([terms[0], 2 * terms[0], 4 * terms[0]]) and terms[0] > 0


def test_smoothmix_mixes_only_images_that_the_copies_get_right():
    logits, mixed = torch.tensor(TWO_COPIES).repeat(2, 1), torch.tensor(TWO_COPIES).flip(0).repeat(2, 1)
    losses = mixing_loss(logits, mixed, torch.tensor([0, 1]), torch.tensor([0.25, 0.25]))
    assert losses.shape == (2, 2) and (losses[0] > 0).all() and (losses[1] == 0).all()


def test_smoothmix_ends_outside_any_ball_and_in_the_box():
    noise = torch.zeros(40, 1, 3, 4)
    start, end = SmoothMix(0.0, 2.0, steps=4).attacked(PLANE, MIDDLE, SIDES, noise, step())
    assert torch.equal(start, MIDDLE) and end.min() >= 0 and end.max() <= 1
    assert (end - MIDDLE).flatten(1).norm(dim=1).min() > 0.8
    short = SmoothMix(0.0, 0.02, steps=4).attacked(PLANE, MIDDLE, SIDES, noise, step())[1]
    torch.testing.assert_close(short, MIDDLE + 4 * 0.02 * AWAY, atol=1e-5, rtol=0)


def test_the_worst_noise_of_catrs_is_worse_near_and_as_large_as_it_was():
    method, noise = METHODS["CATRS"], noise_of_copies(IMAGES, COPIES, SIGMA, step()).double()
    worst = method.worst(network(), IMAGES, SOFT, noise)
    before, after = (divergences(network()(IMAGES.repeat_interleave(COPIES, 0) + e), SOFT) for e in (noise, worst))
    assert (after > before).all()
    torch.testing.assert_close(worst.mean((1, 2, 3)), noise.mean((1, 2, 3)))
    sizes = [x.square().mean((1, 2, 3)).sqrt() for x in (worst, noise)]
    torch.testing.assert_close(*sizes, rtol=0.15, atol=0)
    assert (worst - noise).flatten(1).norm(dim=1).max() < 1.2 * method.epsilon


def test_noise_that_was_not_moved_is_restored_to_itself():
    noise = torch.randn(5, 1, 3, 4, generator=torch.Generator().manual_seed(0)) + 0.2
    torch.testing.assert_close(restored(noise, noise), noise)


# ---- DDN -------------------------------------------------------------------------------------------------------


def against_the_plane(x):
    logits = PLANE(x)
    return F.cross_entropy(logits, SIDES, reduction="none"), logits.argmax(1) != SIDES


def test_the_steps_of_ddn_follow_the_cosine():
    assert step_lengths(2) == pytest.approx([0.505, 0.01])
    assert step_lengths(4) == pytest.approx([0.855, 0.505, 0.155, 0.01], abs=1e-3)
    assert step_lengths(10)[0] == pytest.approx(0.9758, abs=1e-4)


def test_ddn_finds_the_distance_of_a_linear_classifier():
    moved = ddn(against_the_plane, MIDDLE, 0.3, steps=300, levels=10_000)
    lengths, distance = (moved - MIDDLE).flatten(1).norm(dim=1), PLANE.distance(MIDDLE).abs()
    assert (PLANE(moved).argmax(1) != SIDES).all()
    assert (lengths > distance - 1e-5).all() and (lengths < 1.06 * distance + 0.002).all()


def test_a_budget_beyond_the_box_is_cut_to_its_farthest_corner():
    """Else the norm would fall from 1000 by 5 % a step: 75 steps would not bring it into the box again."""
    moved = ddn(against_the_plane, MIDDLE, 1000.0, steps=75, levels=10_000)
    far = PLANE.distance(MIDDLE).abs() > 0.1
    assert ((moved - MIDDLE).flatten(1).norm(dim=1) < 1.06 * PLANE.distance(MIDDLE).abs())[far].all() and far.sum() > 5


@pytest.mark.parametrize("budget", [0.0, 0.05, 0.3, 3.0])
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_ddn_stays_in_the_ball_and_in_the_box(budget, steps):
    for images in (MIDDLE, MIDDLE.round(), MIDDLE.mul(255).round() / 255):
        moved = ddn(against_the_plane, images, budget, steps=steps)
        assert ((moved - images).flatten(1).norm(dim=1) <= budget + 1e-6).all()
        assert moved.min() >= 0 and moved.max() <= 1


def test_ddn_leaves_images_that_are_wrong_already_or_never_become_wrong():
    for wrong in (torch.ones, torch.zeros):

        def judge(x, wrong=wrong):
            return x.flatten(1).sum(1), wrong(len(x)).bool()

        assert torch.equal(ddn(judge, MIDDLE, 0.5, steps=5), MIDDLE)


def test_ddn_moves_on_the_grid_of_the_images():
    seen = []

    def judge(x):
        seen.append(x.detach())
        return against_the_plane(x)

    ddn(judge, MIDDLE.mul(16).round() / 16, 1.0, steps=5, levels=16)
    assert all(torch.equal((16 * x).round() / 16, x) for x in seen) and len(seen) == 5


def test_the_last_step_of_ddn_is_not_looked_at():
    """The first look is at the image itself: one step finds nothing."""
    assert torch.equal(ddn(against_the_plane, MIDDLE, 3.0, steps=1), MIDDLE)
    assert not torch.equal(ddn(against_the_plane, MIDDLE, 3.0, steps=2), MIDDLE)


def test_where_ddn_has_no_gradient_the_image_stays():
    assert torch.equal(ddn(lambda x: (0 * x.flatten(1).sum(1), torch.zeros(40).bool()), MIDDLE, 0.5, steps=3), MIDDLE)


def test_smoothadv_by_ddn_counts_the_votes_of_the_copies():
    """With two of three copies on the other side g is wrong already, and the image stays; with one it is moved."""
    method = SmoothAdvDDN(SIGMA, 2.0, steps=6, copies=3, warm_up=1)
    for copies, stay in (([5, 5, -5], True), ([5, 0, 0], False)):
        noise = torch.stack([size * AWAY for size in copies], 1).flatten(0, 1)
        moved = method.attacked(PLANE, MIDDLE, SIDES, noise, step())
        still = (moved == MIDDLE).flatten(1).all(1)
        assert still.all() if stay else still.float().mean() < 0.1


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"levels": 0}, {"budget": -1.0}, {"budget": math.inf}, {"budget": math.nan}, {"gamma": 1.0}]
)
def test_what_makes_no_sense_to_ddn_is_refused(wrong):
    with pytest.raises(ValueError, match="steps and levels must be at least 1, budget finite"):
        ddn(against_the_plane, MIDDLE, **{"budget": 0.5, "steps": 2, **wrong})
    with pytest.raises(ValueError, match=r"images must lie in the box \[0, 1\]"):
        ddn(against_the_plane, MIDDLE + 1, 0.5, steps=2)


# ---- nothing mixes ---------------------------------------------------------------------------------------------


@pytest.fixture
def drawn_for(monkeypatch):
    """rows -> torch draws for each of these images what it would draw for it in the whole batch."""
    originals = {"randn": torch.randn, "rand": torch.rand}

    def use(rows):
        def of(draw):
            def drawn(*size, generator, device=None):
                first, *rest = size[0] if isinstance(size[0], (tuple, torch.Size)) else size
                whole = draw((N * first // len(rows), *rest), generator=generator)
                return whole.unflatten(0, (N, -1))[rows].flatten(0, 1)

            return drawn

        for name, draw in originals.items():
            monkeypatch.setattr(torch, name, of(draw))

    return use


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_of_a_batch_is_the_mean_of_those_of_its_images_in_any_order(name, drawn_for):
    def loss(rows):
        drawn_for(rows)
        return METHODS[name](network(), IMAGES[rows], labels_of(name, rows), step()).item()

    together = loss(list(range(N)))
    assert loss(torch.randperm(N, generator=torch.Generator().manual_seed(5)).tolist()) == pytest.approx(together)
    assert sum(loss([i]) for i in range(N)) / N == pytest.approx(together)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("training", [True, False])
def test_modes_and_gradients_are_left_as_they_were_and_only_training_passes_count(name, training):
    f = network().train(training)
    f[3].eval()  # a part that was frozen
    modes, batches = [part.training for part in f.modules()], f[2].num_batches_tracked.item()
    METHODS[name](f, IMAGES, labels_of(name), step())
    assert [part.training for part in f.modules()] == modes and all(p.grad is None for p in f.parameters())
    assert f[2].num_batches_tracked.item() - batches == training * PASSES.get(name, 1)


def test_after_an_attack_that_failed_the_modes_are_restored_too():
    f = network().train()
    with pytest.raises(KeyError), evaluating(f):
        assert not any(part.training for part in f.modules())
        raise KeyError
    assert all(part.training for part in f.modules())


@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_reaches_every_parameter_and_is_finite(name):
    f = network()
    METHODS[name](f, IMAGES, labels_of(name), step()).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in f.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_is_that_of_the_loss_with_the_attack_held_fixed(name, monkeypatch):
    """The slope of the loss along its gradient, with the attack's result replayed: nothing else is detached."""
    f, kept = network(), []
    for where in ("attacked", "worst"):
        if original := getattr(type(METHODS[name]), where, None):
            monkeypatch.setattr(type(METHODS[name]), where, lambda *a, of=original: kept.append(of(*a)) or kept[0])
    METHODS[name](f, IMAGES, labels_of(name), step()).backward()
    losses, size = [], 1e-5
    for sign in (1, -1):
        g = copy.deepcopy(f)
        with torch.no_grad():
            for p, q in zip(g.parameters(), f.parameters(), strict=True):
                p += sign * size * q.grad
        losses.append(METHODS[name](g, IMAGES, labels_of(name), step()).item())
    expected = sum(p.grad.square().sum() for p in f.parameters()).item()
    assert (losses[0] - losses[1]) / (2 * size) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_comes_close_and_the_loss_stays_float32(name):
    f, images = network().float(), IMAGES.float()
    exact = METHODS[name](f, images, labels_of(name), step()).item()
    with torch.autocast("cpu", torch.bfloat16):
        half = METHODS[name](f, images, labels_of(name), step())
    assert half.dtype == torch.float32 and half.item() == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("name", METHODS)
def test_draws_come_from_the_generator_of_the_step_alone(name):
    before = torch.random.get_rng_state()
    first, again, other = (METHODS[name](network(), IMAGES, labels_of(name), step(seed)) for seed in (7, 7, 8))
    assert first == again != other and torch.equal(torch.random.get_rng_state(), before)


# ---- fields ----------------------------------------------------------------------------------------------------

NUMERIC = [(name, f) for name, m in METHODS.items() for f in dataclasses.fields(m) if f.type in (int, float)]


@pytest.mark.parametrize(("name", "field"), NUMERIC, ids=lambda x: getattr(x, "name", x))
def test_a_number_out_of_its_range_is_refused_by_its_name(name, field):
    for value in (-1, math.nan, "1") if field.type is float else (-1, 1.5, "1", *([0] if field.default != 0 else [])):
        with pytest.raises(ValueError, match=f"{field.name} must be a (whole|finite) number, at least"):
            dataclasses.replace(METHODS[name], **{field.name: value})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": LABELS[:3]}, "classes must be .images,. and soft .images, K."),
        ({"classes": LABELS + 1}, "classes must be whole numbers from 0 to 2"),
        ({"classes": LABELS.float()}, "classes must be whole numbers"),
        ({"soft": 10 * SOFT}, "divide the votes by their number"),
    ],
)
def test_tables_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(METHODS["CATRS"], **wrong)


def test_the_warm_up_is_a_straight_line_to_one():
    assert [warmed_up(step(epoch=epoch), 4) for epoch in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


# ---- in the loop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_what_is_easy(name, tmp_path):
    """Two classes, dark and bright: a few epochs of any method tell them apart under noise."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(96) % 2
    images = (0.3 * torch.rand(96, 1, 3, 4, generator=generator) + 0.7 * classes.view(-1, 1, 1, 1)).float()
    method, labels = METHODS[name], classes
    if name == "CATRS":
        teacher = hyperplane()
        teacher.w, teacher.b = torch.ones(12), -6.0
        soft = class_counts(teacher, images, None, 200, sigma=0.25, num_classes=2).float() / 200
        method, labels = CATRS(SIGMA, classes, soft, copies=3), torch.arange(96)
    if name == "MACER":
        method = dataclasses.replace(method, lam=1.0)
    if name == "Consistency":
        method = dataclasses.replace(method, lam=1.0)
    recipe = Recipe(method, "small", epochs=8, batch_size=16, lr=0.05)
    f = train(recipe, lambda: network(2).float(), TensorDataset(images, labels), tmp_path)
    noisy = images + 0.3 * torch.randn(images.shape, generator=generator)
    assert (f(noisy).argmax(1) == classes).float().mean() > 0.9
