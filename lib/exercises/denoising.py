"""The exercises of notebook 02: the Stab loss by hand and as a function, the luckiest of many, a service's radius."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from lib.exercises.exercise import Cases, Exercise

LEVEL = 0.001
CLEAN, DENOISED = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.5, 1.5, 0.0]])  # f's logits on one image


def stab_loss(logits: nn.Module, denoise: nn.Module, images: Tensor, labels: Tensor, noisy: Tensor) -> Tensor:
    """The mean cross-entropy of f's logits on D(noisy) to f's answers on the clean images; labels play no part."""
    return F.cross_entropy(logits(denoise(noisy)), logits(images).argmax(1))


def batches() -> Cases:
    """A small classifier and a small denoiser with random weights; one image, and six."""
    draw = torch.Generator().manual_seed(31)
    classify, denoise = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), nn.Conv2d(1, 1, 3, padding=1)
    for weight in (*classify.parameters(), *denoise.parameters()):
        weight.data = torch.randn(weight.shape, generator=draw).requires_grad_(False)
    classify[1].bias.data = -classify[1].weight.sum(1) / 2  # a grey image leaves it undecided
    images = torch.rand(7, 1, 4, 4, generator=draw)
    noisy = images + torch.randn(images.shape, generator=draw)
    labels = (classify(images).argmax(1) + torch.tensor([1, 0, 2, 1, 0, 1, 2])) % 3  # f is right on two of them
    return [(classify, denoise, images[part], labels[part], noisy[part]) for part in (slice(0, 1), slice(1, 7))]


def service(alpha: float = LEVEL, n: int = 100, sigma: float = 0.25) -> float:
    """The radius of a unanimous vote."""
    return float(sigma * stats.norm.ppf(alpha ** (1 / n)))


def luckiest(candidates: int = 60, images: int = 500, share: float = 0.4) -> float:
    """The mean of the largest of so many counts, each of Binomial(images, share), as a share of the images."""
    return float((1 - stats.binom.cdf(np.arange(images), images, share) ** candidates).sum() / images)


EXERCISES: list[Exercise] = [
    Exercise(
        name="02.stab",
        minutes=5,
        difficulty="easy",
        truth=lambda: float(F.cross_entropy(DENOISED, torch.tensor([0]))),
        mistakes={
            "This is Clf: it takes the label. Stab takes f's answer on the clean image.": lambda: float(
                F.cross_entropy(DENOISED, torch.tensor([1]))
            ),
            "This is the loss on the clean image; f is judged on the denoised one.": lambda: float(
                F.cross_entropy(CLEAN, torch.tensor([0]))
            ),
            "This is the loss on the clean image to the label; neither is what Stab looks at.": lambda: float(
                F.cross_entropy(CLEAN, torch.tensor([1]))
            ),
            "This is the probability of that class; the loss is minus its logarithm.": lambda: float(
                DENOISED.softmax(1)[0, 0]
            ),
            "The sign is turned: a loss is at least 0.": lambda: -float(F.cross_entropy(DENOISED, torch.tensor([0]))),
            "This is the logarithm of the sum alone; the logit of the class goes off it.": lambda: float(
                DENOISED.logsumexp(1)
            ),
            "This is the logarithm to base 10; take the natural one.": lambda: float(
                F.cross_entropy(DENOISED, torch.tensor([0])) / np.log(10)
            ),
            "This takes all of f's probabilities on the clean image; Stab takes only its answer.": lambda: float(
                F.cross_entropy(DENOISED, CLEAN.softmax(1))
            ),
        },
    ),
    Exercise(
        name="02.stab_loss",
        minutes=10,
        difficulty="medium",
        truth=stab_loss,
        cases=batches,
        mistakes={
            "This is Clf: it compares with the labels, Stab with f's own answers on the clean images.": (
                lambda f, d, images, labels, noisy: F.cross_entropy(f(d(noisy)), labels)
            ),
            "This is MSE: f plays no part in it.": lambda f, d, images, labels, noisy: F.mse_loss(d(noisy), images),
            "This adds MSE. Stab+MSE is not a sum: it starts from the MSE denoiser, the loss is Stab alone.": (
                lambda f, d, images, labels, noisy: (
                    stab_loss(f, d, images, labels, noisy) + F.mse_loss(d(noisy), images)
                )
            ),
            "The denoiser is missing: f has to see D(noisy).": (
                lambda f, d, images, labels, noisy: F.cross_entropy(f(noisy), f(images).argmax(1))
            ),
            "The answers to be kept are those on the noisy images here; take them on the clean ones.": (
                lambda f, d, images, labels, noisy: F.cross_entropy(f(d(noisy)), f(noisy).argmax(1))
            ),
            "f is compared with its own answers on the denoised images: so it agrees with any mistake of D.": (
                lambda f, d, images, labels, noisy: F.cross_entropy(f(d(noisy)), f(d(noisy)).argmax(1))
            ),
            "The answers to be kept come from D(images) here; the clean images go to f as they are.": (
                lambda f, d, images, labels, noisy: F.cross_entropy(f(d(noisy)), f(d(images)).argmax(1))
            ),
            "The two are swapped: the logits are those of D(noisy), the answers those of the clean images.": (
                lambda f, d, images, labels, noisy: F.cross_entropy(f(images), f(d(noisy)).argmax(1))
            ),
            "This takes all of f's probabilities on the clean images; Stab takes only its answers: argmax(1).": (
                lambda f, d, images, labels, noisy: F.cross_entropy(f(d(noisy)), f(images).softmax(1))
            ),
            "This takes f's logits on the clean images as they are; Stab takes only its answers: argmax(1).": (
                lambda f, d, images, labels, noisy: F.cross_entropy(f(d(noisy)), f(images))
            ),
            "argmax() looks over the whole batch; argmax(1) gives an answer for each image.": (
                lambda f, d, images, labels, noisy: F.cross_entropy(f(d(noisy)), f(images).argmax())
            ),
            "The denoiser sees the clean images here; it has to take noise away: D(noisy).": (
                lambda f, d, images, labels, noisy: F.cross_entropy(f(d(images)), f(images).argmax(1))
            ),
            "There is a softmax too many: cross_entropy takes logits and does that by itself.": (
                lambda f, d, images, labels, noisy: F.cross_entropy(f(d(noisy)).softmax(1), f(images).argmax(1))
            ),
            "This is the sum over the images; take the mean.": (
                lambda f, d, images, labels, noisy: len(images) * stab_loss(f, d, images, labels, noisy)
            ),
            "This is one loss for each image; take their mean.": (
                lambda f, d, images, labels, noisy: F.cross_entropy(f(d(noisy)), f(images).argmax(1), reduction="none")
            ),
            "This is the share of the answers that change: true to the aim, but without a gradient to train by.": (
                lambda f, d, images, labels, noisy: (f(d(noisy)).argmax(1) != f(images).argmax(1)).float().mean()
            ),
        },
    ),
    Exercise(
        name="02.service",
        minutes=10,
        difficulty="easy",
        truth=service,
        mistakes={
            "σ is missing: the radius is σ times the quantile.": lambda: service(sigma=1.0),
            "This is the bound on p_A; it still has to become a radius.": lambda: LEVEL ** (1 / 100),
            "Φ⁻¹ is missing: the radius is σ Φ⁻¹(p_A), not σ p_A.": lambda: 0.25 * LEVEL ** (1 / 100),
            "This takes 1 - α for the bound; of 100 equal votes it is α to the power 1 / 100.": lambda: float(
                0.25 * stats.norm.ppf(1 - LEVEL)
            ),
            "This splits α over two sides; the bound is one-sided.": lambda: service(alpha=LEVEL / 2),
            "This is the radius of 99 votes of 100; the largest comes from a unanimous vote.": lambda: float(
                0.25 * stats.norm.ppf(stats.beta.ppf(LEVEL, 99, 2))
            ),
            "This is the radius of 10,000 votes; here there are 100.": lambda: service(n=10_000),
        },
    ),
    Exercise(
        name="02.luckiest",
        minutes=15,
        difficulty="hard",
        truth=luckiest,
        mistakes={
            "This is what each of them shows on average; the luckiest shows more.": lambda: 0.4,
            "This is a number of images; divide by 500.": lambda: 500 * luckiest(),
            "This is one standard deviation above 0.4, what one candidate easily has; the best of 60 has more.": (
                lambda: 0.4 + float(np.sqrt(0.4 * 0.6 / 500))
            ),
            "The two numbers are swapped: it is 60 candidates and 500 images.": lambda: luckiest(500, 60),
            "This is by how much the luckiest is too high; its certified accuracy is asked for.": (
                lambda: luckiest() - 0.4
            ),
            "This is where one candidate in 60 lies above; ask for the mean of the largest of 60.": lambda: float(
                stats.binom.ppf(1 - 1 / 60, 500, 0.4) / 500
            ),
        },
    ),
]
