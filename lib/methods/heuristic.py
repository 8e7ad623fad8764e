"""Heuristic defenses of notebook 00: Papernot et al. 2016, Xu et al. 2018, Madry et al. 2018."""

from torch import nn

from lib.config import WhyCertify
from lib.datasets import Data, stack, training_images
from lib.methods.cohen2019 import trained_classifier
from lib.models.defenses import BitDepth, Detector, Median
from lib.training.objectives import AdversarialTraining, Distillation, SqueezedViews

CALIBRATION = 2000  # training images, at most, that decide a detector's threshold


def distilled_classifier(cfg: WhyCertify, data: Data) -> nn.Module:
    """Defensive distillation: a teacher at temperature `cfg.temperature`, and its student, which answers at T = 1."""
    teacher = trained_classifier(cfg, data, Distillation(cfg.temperature), f"teacher, T = {cfg.temperature:g}")
    return trained_classifier(cfg, data, Distillation(cfg.temperature, teacher), f"student, T = {cfg.temperature:g}")


def squeezable_classifier(cfg: WhyCertify, data: Data) -> nn.Module:
    """A classifier for feature squeezing: trained on the images and on what a 2 x 2 median leaves of them."""
    return trained_classifier(cfg, data, SqueezedViews((Median(2),)), "with and without a median")


def squeezing_detector(cfg: WhyCertify, data: Data, f: nn.Module) -> Detector:
    """The joint detector of bit depth and a 2 x 2 median, its threshold set on the first 2,000 training images."""
    train = training_images(data)
    images, _ = stack(train, range(min(len(train), CALIBRATION)))
    return Detector.calibrated(f, (BitDepth(cfg.bits), Median(2)), images.to(cfg.device), cfg.false_alarms)


def adversarially_trained_classifier(cfg: WhyCertify, data: Data) -> nn.Module:
    """Adversarial training in the norm and with the budget of the attack, 7 steps and a random start."""
    objective = AdversarialTraining(cfg.budget, cfg.norm)
    return trained_classifier(cfg, data, objective, "adversarial training", cfg.adversarial_epochs)
