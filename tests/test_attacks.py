import pytest
import torch
from toys import hyperplane

from lib.attacks import pgd_l2

IMAGES = 0.3 + 0.4 * torch.rand(40, 1, 3, 4, generator=torch.Generator().manual_seed(0))
BASE = hyperplane()
LABELS = (BASE.distance(IMAGES) > 0).long()


@pytest.mark.parametrize("keywords", [{}, {"sigma": 0.25, "samples": 8}])
def test_attacked_images_stay_in_the_ball_and_in_the_box(keywords):
    moved = pgd_l2(BASE, IMAGES, LABELS, torch.linspace(0.1, 3, 40), **keywords)
    assert ((moved - IMAGES).flatten(1).norm(dim=1) <= torch.linspace(0.1, 3, 40) + 1e-5).all()
    assert moved.min() >= 0 and moved.max() <= 1


def test_a_linear_classifier_falls_just_outside_its_distance_and_not_inside():
    distance = BASE.distance(IMAGES).abs()
    for factor, falls in ((0.98, False), (1.02, True)):
        moved = pgd_l2(BASE, IMAGES, LABELS, factor * distance)
        assert ((BASE(moved).argmax(1) != LABELS) == falls).float().mean() > 0.9


def test_the_same_seed_gives_the_same_attack():
    one, two = (pgd_l2(BASE, IMAGES, LABELS, 0.5, sigma=0.5, samples=4, seed=5) for _ in range(2))
    assert torch.equal(one, two)
