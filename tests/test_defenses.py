"""Heuristic defenses and what breaks them: each part by hand, by SciPy, or by a classifier whose answer is known."""

import inspect
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn

from lib import attacks
from lib.attacks import checklist
from lib.attacks.checklist import Checklist
from lib.models.defenses import BitDepth, Detector, Median, Temperature, threshold
from lib.training.objectives import AdversarialTraining, Distillation, SmoothAdv, SqueezedViews, Step

IMAGES = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def linear(margin=0.3):
    """Logits (0, w . x - b): on the grey image class 1, and `margin` away from class 0 in l2."""
    w = torch.ones(64) / 8
    layer = nn.Linear(64, 2)
    layer.weight.data, layer.bias.data = torch.stack([0 * w, w]), torch.tensor([0.0, margin - 0.5 * w.sum().item()])
    return nn.Sequential(nn.Flatten(), layer).requires_grad_(False).eval()


GREY = torch.full((2, 1, 8, 8), 0.5)
ONES = torch.ones(2).long()


# ---- squeezing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_bit_depth_rounds_half_to_even_as_numpy_does(bits):
    steps = 2**bits - 1
    images = torch.cat([IMAGES.flatten(), (torch.arange(2 * steps + 1) / (2 * steps))]).view(1, 1, 1, -1)
    assert np.array_equal(
        BitDepth(bits)(images).numpy(), np.rint(images.numpy() * np.float32(steps)) / np.float32(steps)
    )


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_median_is_that_of_scipy(size, channels):
    images = torch.rand(3, channels, 7, 9, generator=torch.Generator().manual_seed(1))
    expected = ndimage.median_filter(images.numpy(), (1, 1, size, size), mode="reflect")
    assert np.array_equal(Median(size)(images).numpy(), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BitDepth(0), "bits must be a whole number, at least 1; got 0"),
        (lambda: BitDepth(1.5), "bits must be a whole number"),
        (lambda: Median(0), "size must be a whole number, at least 1; got 0"),
        (lambda: Temperature(0), "temperature must be positive and finite; got 0"),
        (lambda: Temperature(math.inf), "temperature must be positive and finite"),
        (lambda: threshold(torch.zeros(0), 0.05), "a threshold needs distances"),
        (lambda: threshold(torch.zeros(3), 1.0), r"false_alarms in \[0, 1\)"),
        (lambda: AdversarialTraining(0.1, "l1"), "norm must be 'l2' or 'linf', got 'l1'"),
        (lambda: Distillation(0.0), "temperature must be positive"),
        (lambda: Distillation(1.0, network().train()), "teacher would be trained"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("share", "rank"), [(0.0, 99), (0.05, 94), (0.5, 49), (0.999, 0)])
def test_the_threshold_stands_at_its_rank_and_at_most_the_share_lies_above(share, rank):
    distances = torch.randperm(100, generator=torch.Generator().manual_seed(0)).float()
    assert threshold(distances, share) == rank
    assert (distances > threshold(distances, share)).float().mean() <= share + 1e-9


def test_a_detector_compares_answers_on_the_views_and_flags_what_is_above_its_threshold():
    f = network()
    detector = Detector.calibrated(f, (BitDepth(1), Median(2)), IMAGES, 0.25)
    plain = f(IMAGES).softmax(1)
    views = torch.stack([(plain - f(squeeze(IMAGES)).softmax(1)).abs().sum(1) for squeeze in detector.squeezers])
    assert torch.equal(detector.distances(IMAGES), views.amax(0)) and views.amax(0).max() <= 2
    assert detector.flagged(IMAGES).sum() == 3


# ---- temperature and distillation ------------------------------------------------------------------------------


def test_scaled_logits_change_no_answer_hide_the_gradient_of_a_softmax_and_not_that_of_the_margin():
    f = network()
    loud, labels = nn.Sequential(f, Temperature(1e-4)), f(IMAGES).argmax(1)
    assert torch.equal(loud(IMAGES).argmax(1), labels)
    assert attacks.zero_gradients(attacks.smoothed_loss(loud, labels), IMAGES) > 0.9
    calm, sharp = (attacks.input_gradient(attacks.margin_loss(g, labels), IMAGES) for g in (f, loud))
    assert torch.allclose(F.normalize(calm.flatten(1)), F.normalize(sharp.flatten(1)), atol=1e-5)


def test_distillation_by_hand_and_at_temperature_1_on_sure_labels_ordinary_training():
    model, step = network(), Step(torch.Generator())
    logits = model(IMAGES)
    assert Distillation(1.0)(model, IMAGES, LABELS, step).item() == pytest.approx(
        F.cross_entropy(logits, LABELS).item()
    )
    teacher = network(1).requires_grad_(False)
    soft = (teacher(IMAGES) / 20).softmax(1)
    expected = -(soft * (logits / 20).log_softmax(1)).sum(1).mean()
    assert Distillation(20.0, teacher)(model, IMAGES, LABELS, step).item() == pytest.approx(expected.item())


def test_without_squeezers_training_is_ordinary_and_each_adds_a_view():
    model, step = network(), Step(torch.Generator())
    plain, squeezed = F.cross_entropy(model(IMAGES), LABELS), F.cross_entropy(model(Median(2)(IMAGES)), LABELS)
    assert SqueezedViews()(model, IMAGES, LABELS, step).item() == pytest.approx(plain.item())
    both = SqueezedViews((Median(2),))(model, IMAGES, LABELS, step)
    assert both.item() == pytest.approx(((plain + squeezed) / 2).item())


# ---- attacks ---------------------------------------------------------------------------------------------------


def test_one_step_moves_every_pixel_by_the_budget():
    moved = attacks.fgsm(attacks.margin_loss(linear(), ONES), GREY, 0.1)
    assert torch.allclose(moved, GREY - 0.1)


@pytest.mark.parametrize("targets", [None, torch.tensor([2, 0, 1] * 4)])
def test_the_margin_is_above_zero_exactly_where_the_attack_has_won(targets):
    f = network()
    loss, answers = attacks.margin_loss(f, LABELS, targets=targets)(IMAGES), f(IMAGES).argmax(1)
    assert torch.equal(loss > 0, answers != LABELS if targets is None else answers == targets)
    capped = attacks.margin_loss(f, LABELS, targets=targets, kappa=0.01)(IMAGES)
    assert torch.equal(capped, loss.clamp_max(0.01))


def test_labels_that_are_no_classes_are_refused():
    with pytest.raises(ValueError, match="labels and targets must be from 0 to 2"):
        attacks.margin_loss(network(), LABELS + 1)(IMAGES)


@pytest.mark.parametrize(("norm", "budget"), [("linf", 0.1), ("l2", 0.5)])
def test_random_search_stays_in_ball_and_box_and_breaks_what_is_within_reach(norm, budget):
    f = linear(margin=0.2)
    moved = attacks.random_search(attacks.margin_loss(f, ONES), GREY, budget, norm=norm, queries=300)
    offset = (moved - GREY).flatten(1)
    length = offset.abs().amax(1) if norm == "linf" else offset.norm(dim=1)
    assert (length <= budget * (1 + 1e-5)).all() and moved.min() >= 0 and moved.max() <= 1
    assert (f(moved).argmax(1) == 0).all()


def test_random_search_needs_no_gradient_and_draws_from_its_generator_alone():
    score, state = attacks.margin_loss(nn.Sequential(BitDepth(2), network()), LABELS), torch.random.get_rng_state()
    once, twice = (attacks.random_search(score, IMAGES, 0.2, queries=20) for _ in range(2))
    assert torch.equal(once, twice) and torch.equal(state, torch.random.get_rng_state())


def test_of_several_attacks_the_first_that_breaks_an_image_is_taken():
    def broken(images):
        return images.flatten(1)[:, 0] > 0.5

    zero = torch.zeros(3, 1, 1, 1)
    one, two = torch.tensor([0.0, 0.6, 0.0]).view(3, 1, 1, 1), torch.tensor([0.7, 0.8, 0.1]).view(3, 1, 1, 1)
    assert attacks.first_that_breaks(broken, zero, one, two).flatten().tolist() == pytest.approx([0.7, 0.6, 0.0])


@pytest.mark.parametrize("name", ["fgsm", "pgd", "random_search", "checklist"])
def test_an_attack_leaves_modes_and_gradients_as_they_were(name):
    f = network().requires_grad_(True).train()
    loss, broken = attacks.margin_loss(f, LABELS), attacks.answers_wrongly(f, LABELS)
    runs = {
        "fgsm": lambda: attacks.fgsm(loss, IMAGES, 0.1), "pgd": lambda: attacks.pgd(loss, IMAGES, 0.1, steps=2),
        "random_search": lambda: attacks.random_search(loss, IMAGES, 0.1, queries=2),
        "checklist": lambda: checklist(loss, broken, loss, IMAGES, 0.1, transferred=IMAGES, steps=2, queries=2),
    }  # fmt: skip
    runs[name]()
    assert f.training and all(parameter.grad is None for parameter in f.parameters())


# ---- the checklist ---------------------------------------------------------------------------------------------

HONEST = Checklist(0.99, 0.6, 0.5, 0.7, 0.55, 0.0, 0.8, 0.1, 0.0)


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        ({"one_step": 0.4}, "one step beats many"),
        ({"transferred": 0.3}, "an attack without gradients beats it"),
        ({"random_search": 0.3}, "an attack without gradients beats it"),
        ({"zero_gradients": 0.5}, "gradients are zero"),
        ({"huge_budget": 0.4}, "a huge budget is not enough"),
        ({"double_budget": 0.8}, "success does not grow with the budget"),
    ],
)
def test_each_question_has_its_sign_and_an_honest_evaluation_none(change, sign):
    assert not any(HONEST.signs().values())
    found = Checklist(**(vars(HONEST) | change)).signs()
    assert [name for name, value in found.items() if value] == [sign]


def test_every_share_is_printed_by_its_name():
    assert list(HONEST.shares()) == [name.replace("_", " ") for name in inspect.signature(Checklist).parameters]


def test_rounding_hides_the_gradient_and_its_table_says_so():
    f = nn.Sequential(BitDepth(1), linear(margin=0.3))
    images = GREY + 0.1  # rounded to 1: far from the border, until the attack crosses one half
    loss, broken = attacks.smoothed_loss(f, ONES), attacks.answers_wrongly(f, ONES)
    through = attacks.margin_loss(lambda z: f[1](attacks.straight_through(f[0])(z)), ONES)
    moved = attacks.pgd(through, images, 0.2, norm="linf", steps=5)
    found = checklist(loss, broken, through, images, 0.2, transferred=moved, steps=5, queries=300).signs()
    assert broken(moved).all() and found["gradients are zero"] and found["an attack without gradients beats it"]


# ---- adversarial training --------------------------------------------------------------------------------------


def test_in_l2_without_a_random_start_it_is_smoothadv_without_noise():
    mine = AdversarialTraining(0.3, "l2", steps=4, random_start=False)
    theirs = SmoothAdv(0.0, 0.3, steps=4, warm_up=1)
    losses = [kind(network(), IMAGES, LABELS, Step(torch.Generator().manual_seed(0))).item() for kind in (mine, theirs)]
    assert losses[0] == pytest.approx(losses[1])


def test_without_a_budget_it_is_ordinary_training_and_with_one_the_loss_is_larger():
    model, ordinary = network(), F.cross_entropy(network()(IMAGES), LABELS).item()
    losses = [AdversarialTraining(e)(model, IMAGES, LABELS, Step(torch.Generator())).item() for e in (0.0, 0.1)]
    assert losses[0] == pytest.approx(ordinary) and losses[1] > losses[0]


# ---- beside another library ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "budget", "theirs"), [("linf", 0.25, "LinfPGD"), ("l2", 1.5, "L2PGD")])
def test_our_attack_breaks_as_many_images_as_that_of_foolbox(norm, budget, theirs):
    foolbox = pytest.importorskip("foolbox", reason="needs foolbox, of the extra photos")
    f, images = network(3).requires_grad_(False), torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    labels = f(images).argmax(1)
    moved = attacks.pgd(attacks.margin_loss(f, labels), images, budget, norm=norm, steps=50)
    ours = attacks.answers_wrongly(f, labels)(moved).float().mean().item()
    attack, model = getattr(foolbox.attacks, theirs)(steps=50), foolbox.PyTorchModel(f, bounds=(0, 1), device="cpu")
    *_, success = attack(model, images, labels, epsilons=budget)
    found = success.float().mean().item()
    assert ours >= found - math.sqrt(found * (1 - found) / 200) and ours > 0.1
