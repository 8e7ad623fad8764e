"""Attacks against losses whose best point is known in closed form or by a search of everything."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import hyperplane

from lib.attacks import losses, mean_softmax_loss, pgd, smoothed_loss, straight_through

IMAGES = 0.3 + 0.4 * torch.rand(40, 1, 3, 4, generator=torch.Generator().manual_seed(0))
BASE = hyperplane()
LABELS = (BASE.distance(IMAGES) > 0).long()
BUDGETS = torch.linspace(0.1, 3, 40)
NORMS = {"l2": lambda x: x.flatten(1).norm(dim=1), "linf": lambda x: x.flatten(1).abs().amax(1)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def against_g(**keywords):
    return smoothed_loss(BASE, LABELS, sigma=0.25, samples=8, generator=generator(), **keywords)


# ---- where it may go -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("keywords", [{}, {"random_start": True}, {"restarts": 3}, {"step_size": 9.0, "averages": 2}])
@pytest.mark.parametrize("budget", [BUDGETS, 0.3, 0.0])
def test_attacked_images_stay_in_the_ball_and_in_the_box(norm, keywords, budget):
    moved = pgd(against_g(), IMAGES, budget, norm=norm, steps=5, **keywords)
    assert (NORMS[norm](moved - IMAGES) <= budget + 1e-5).all()
    assert moved.min() >= 0 and moved.max() <= 1


def test_an_infinite_budget_leaves_only_the_box_and_an_infinite_box_only_the_ball():
    loss = smoothed_loss(BASE, LABELS)
    far = pgd(loss, IMAGES, math.inf, step_size=100.0)
    assert NORMS["l2"](far - IMAGES).min() > 1 and far.min() >= 0 and far.max() <= 1
    outside = pgd(loss, IMAGES, 9.0, box=(-math.inf, math.inf))
    assert NORMS["l2"](outside - IMAGES) == pytest.approx(9 * torch.ones(40)) and outside.min() < 0


@pytest.mark.parametrize("norm", NORMS)
def test_a_random_start_is_uniform_in_the_ball(norm):
    """A radius r holds the share (r / budget)^d of the ball; without steps uphill the start is what comes back."""
    centre, flat = torch.full((4000, 1, 1, 3), 0.5), lambda x: 0 * x.flatten(1).sum(1)
    moved = pgd(flat, centre, 0.4, norm=norm, steps=1, random_start=True)
    share = (NORMS[norm](moved - centre) / 0.4) ** 3
    assert share.mean() == pytest.approx(0.5, abs=0.02) and (share < 0.1).float().mean() == pytest.approx(0.1, abs=0.02)
    assert (moved - centre).mean((0, 1, 2)) == pytest.approx(torch.zeros(3), abs=0.01)


# ---- how far it comes ------------------------------------------------------------------------------------------


def test_a_linear_classifier_falls_just_outside_its_distance_and_not_inside():
    distance = BASE.distance(IMAGES).abs()
    for factor, falls in ((0.98, False), (1.02, True)):
        moved = pgd(smoothed_loss(BASE, LABELS), IMAGES, factor * distance)
        assert ((BASE(moved).argmax(1) != LABELS) == falls).float().mean() > 0.9


def test_in_linf_a_linear_classifier_falls_just_outside_its_margin_over_the_l1_norm_of_its_weights():
    distance = BASE.distance(IMAGES).abs() * BASE.w.norm() / BASE.w.abs().sum()
    for factor, falls in ((0.98, False), (1.02, True)):
        moved = pgd(smoothed_loss(BASE, LABELS), IMAGES, factor * distance, norm="linf")
        assert ((BASE(moved).argmax(1) != LABELS) == falls).float().mean() > 0.9


@pytest.mark.parametrize("norm, budget", [("l2", 0.3), ("linf", 0.1)])
def test_the_end_of_an_attack_on_a_linear_loss_is_the_best_point_of_the_ball(norm, budget):
    """No pixel meets the box: the best step is budget w / |w| in l2, budget sign(w) in linf."""
    w = torch.randn(1, 3, 4, generator=generator(5))
    moved = pgd(lambda x: (x * w).flatten(1).sum(1), IMAGES, budget, norm=norm)
    best = budget * (w / w.norm() if norm == "l2" else w.sign())
    torch.testing.assert_close(moved, (IMAGES + best), atol=1e-5, rtol=0)


def test_budget_is_not_spent_outside_the_box():
    """Uphill is mostly the first pixel, which may rise by 0.05 only: the rest of the budget goes into the second."""
    start = torch.tensor([0.95, 0.5]).view(1, 1, 1, 2)
    moved = pgd(lambda x: x.flatten(1) @ torch.tensor([1.0, 0.2]), start, 0.3, steps=100, step_size=0.05)
    best = torch.tensor([1.0, 0.5 + math.sqrt(0.3**2 - 0.05**2)])
    torch.testing.assert_close(moved.flatten(), best, atol=0.02, rtol=0)


def two_hills(x):
    """Of the first pixel: a low hill at 0.3, a high one at 0.9, a flat place at 0.5 between them."""
    first = x[:, 0, 0, 0]
    return torch.where(first < 0.5, 1 - (first - 0.3) ** 2 / 0.04, 2 - (first - 0.9) ** 2 / 0.08)


def test_restarts_keep_the_best_end_of_each_image():
    start = torch.full((20, 1, 1, 2), 0.45)
    alone = pgd(two_hills, start, 0.5, norm="linf", steps=40)
    several = pgd(two_hills, start, 0.5, norm="linf", steps=40, restarts=8)
    assert alone[:, 0, 0, 0] == pytest.approx(0.3 * torch.ones(20), abs=0.05)
    assert several[:, 0, 0, 0] == pytest.approx(0.9 * torch.ones(20), abs=0.05)


def test_restarts_never_end_below_a_single_start():
    loss = smoothed_loss(network(), LABELS)
    assert (loss(pgd(loss, IMAGES, 0.2, restarts=4)) >= loss(pgd(loss, IMAGES, 0.2))).all()


def test_averages_find_the_way_that_a_single_noisy_gradient_misses():
    """The mean gradient points along the first axis; each call adds noise 8 times as large in all others."""
    noise = generator(1)

    def loss(x):
        blur = 8 * torch.randn(x.flatten(1).shape, generator=noise)
        return x.flatten(1)[:, 0] + (blur * x.flatten(1))[:, 1:].sum(1)

    gains = [(pgd(loss, IMAGES, 0.2, steps=4, averages=k) - IMAGES)[:, 0, 0, 0].mean() for k in (1, 300)]
    assert gains[0] < 0.05 and gains[1] > 0.08


def test_the_step_is_what_is_asked_for():
    moved = pgd(smoothed_loss(BASE, LABELS), IMAGES, 1.0, steps=3, step_size=0.01)
    assert NORMS["l2"](moved - IMAGES) == pytest.approx(0.03 * torch.ones(40), rel=1e-3)


# ---- the loss of g ---------------------------------------------------------------------------------------------


def network():
    """A classifier that is not linear, of 2 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 2)).eval()


def test_the_loss_of_g_is_the_logarithm_of_the_mean_and_not_the_mean_of_the_logarithms():
    f, m = network(), 7
    value = smoothed_loss(f, LABELS, sigma=1.0, samples=m, generator=generator())(IMAGES)
    noise = torch.randn(40, m, 1, 3, 4, generator=generator())  # the copies of an image side by side
    p = torch.stack([f(IMAGES + noise[:, i]).softmax(1)[torch.arange(40), LABELS] for i in range(m)], 1)
    torch.testing.assert_close(value, -p.mean(1).log())
    assert (value < -p.log().mean(1) - 1e-4).all()


def test_the_mean_of_softmax_of_two_copies_by_hand():
    """Of logits (.2, 0, 0) and (.1, 0, 0): p_0 = .3791525 and .3559131, and -log of their mean is 1.0009428."""
    logits = torch.tensor([[0.2, 0, 0], [0.1, 0, 0]])
    assert mean_softmax_loss(logits, torch.tensor([0])).item() == pytest.approx(1.0009428, abs=1e-6)


def test_without_noise_the_loss_is_the_cross_entropy_of_f():
    expected = F.cross_entropy(network()(IMAGES), LABELS, reduction="none")
    torch.testing.assert_close(smoothed_loss(network(), LABELS)(IMAGES), expected)


def test_the_loss_of_an_image_does_not_depend_on_the_others():
    """Copies and labels are laid out alike: reversed images, labels and noise give the reversed values."""
    noise = torch.randn(40, 5, 1, 3, 4, generator=generator())

    class Fixed:
        def __init__(self, noise):
            self.noise = noise

        def __call__(self, copies):
            return network()(copies + 0.7 * self.noise.flatten(0, 1))

    forward = smoothed_loss(Fixed(noise), LABELS, samples=5)(IMAGES)
    backward = smoothed_loss(Fixed(noise.flip(0)), LABELS.flip(0), samples=5)(IMAGES.flip(0))
    torch.testing.assert_close(forward, backward.flip(0))


def test_the_noise_is_fresh_at_every_call_and_the_same_for_the_same_seed():
    loss, again = (smoothed_loss(network(), LABELS, sigma=0.5, samples=4, generator=generator(5)) for _ in range(2))
    assert torch.equal(first := loss(IMAGES), again(IMAGES)) and not torch.equal(first, loss(IMAGES))


def test_the_same_seed_gives_the_same_attack():
    assert torch.equal(*(pgd(against_g(), IMAGES, 0.5, restarts=2) for _ in range(2)))


@pytest.mark.parametrize("training", [False, True])
def test_copies_in_parts_give_the_same_gradient_and_a_batch_in_training_stays_whole(training, monkeypatch):
    base, sizes, found = network().train(training), [], []
    base.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    for at_once in (2**21, 5 * IMAGES[0].numel()):
        monkeypatch.setattr(losses, "AT_ONCE", at_once)
        x = IMAGES.clone().requires_grad_()
        loss = smoothed_loss(base, LABELS, sigma=0.5, samples=4, generator=generator())
        found.append(torch.autograd.grad(loss(x).sum(), x)[0])
    torch.testing.assert_close(*found)
    assert (max(sizes[1:]) <= 5) is not training


# ---- through steps without a gradient --------------------------------------------------------------------------


def test_straight_through_computes_the_function_and_passes_gradients_by():
    x = torch.rand(3, 4, generator=generator(), requires_grad=True)
    value = straight_through(torch.round)(x)
    (gradient,) = torch.autograd.grad((value * torch.arange(4.0)).sum(), x)
    assert torch.equal(value, torch.round(x)) and torch.equal(gradient, torch.arange(4.0).expand(3, 4))


def test_rounding_hides_the_gradient_and_straight_through_finds_the_way():
    far = 3 * BASE.distance(IMAGES).abs() + 1
    hidden, found = (
        pgd(smoothed_loss(lambda x, step=step: BASE(step(x)), LABELS), IMAGES, far)
        for step in (eighths, straight_through(eighths))
    )
    assert torch.equal(hidden, IMAGES) and (BASE(eighths(found)).argmax(1) != LABELS).all()


def eighths(x):
    return (8 * x).round() / 8


def test_a_function_that_changes_the_shape_is_refused():
    with pytest.raises(ValueError, match=r"must keep the shape \(40, 1, 3, 4\), it gave \(40, 12\)"):
        straight_through(lambda x: x.flatten(1))(IMAGES)


# ---- from where it is called -----------------------------------------------------------------------------------


def test_an_attack_works_where_gradients_are_switched_off_and_leaves_none_behind():
    f = network()
    with torch.no_grad():
        moved = pgd(smoothed_loss(f, LABELS), IMAGES, 0.5)
    assert torch.equal(moved, pgd(smoothed_loss(f, LABELS), IMAGES, 0.5)) and not moved.requires_grad
    assert not torch.equal(moved, IMAGES) and all(p.grad is None for p in f.parameters())


@pytest.mark.parametrize("norm", NORMS)
def test_where_the_gradient_is_zero_the_image_stays(norm):
    assert torch.equal(pgd(lambda x: 0 * x.flatten(1).sum(1), IMAGES, 0.5, norm=norm), IMAGES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "l1"}, "norm must be 'l2' or 'linf', got 'l1'"),
        ({"budget": -1.0}, "budget must be one number or 40 of them, at least 0; got -1.0"),
        ({"budget": math.nan}, "budget .* got nan"),
        ({"budget": torch.ones(39)}, "budget must be one number or 40 of them"),
        ({"budget": torch.ones(40, 1)}, "budget must be one number or 40 of them"),
        ({"budget": math.inf}, "an infinite budget needs a step_size"),
        ({"budget": math.inf, "step_size": 0.1, "restarts": 2}, "an infinite budget needs"),
        ({"step_size": torch.ones(3)}, "step_size must be one number or 40"),
        ({"steps": 0}, "steps must be a whole number >= 1; got 0"),
        ({"restarts": 0}, "restarts must be a whole number >= 1; got 0"),
        ({"averages": 0}, "averages must be a whole number >= 1; got 0"),
        ({"images": IMAGES + 1}, r"images must lie in the box \[0.0, 1.0\]"),
        ({"images": IMAGES * math.nan}, "images must lie in the box"),
        ({"box": (0.5, 1.0)}, r"images must lie in the box \[0.5, 1.0\]"),
        ({"loss": lambda x: x.sum()}, r"one value an image, \(40,\); got \(\)"),
        ({"loss": lambda x: x.flatten(1)}, r"one value an image, \(40,\); got \(40, 12\)"),
        ({"loss": lambda x: x.detach().flatten(1).sum(1)}, "loss has no gradient.*straight_through"),
        ({"loss": lambda x: (0 * x).sqrt().flatten(1).sum(1)}, "the gradient of loss is not finite"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(wrong, message):
    good = {"loss": smoothed_loss(BASE, LABELS), "images": IMAGES, "budget": 0.5}
    with pytest.raises(ValueError, match=message):
        pgd(**{**good, **wrong})


@pytest.mark.parametrize("wrong", [{"sigma": -1.0}, {"sigma": math.nan}, {"samples": 0}, {"generator": None}])
def test_a_loss_of_g_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="noise needs a generator"):
        smoothed_loss(BASE, LABELS, **{"sigma": 0.5, "samples": 2, "generator": generator(), **wrong})
