"""Our attacks beside foolbox's on the same classifier: `python -m benchmarks.attacks [--images N]`.

Foolbox (Rauber et al. 2020) is a maintained library of attacks: `pip install foolbox`. The classifier is notebook 00's,
without a defense and after adversarial training; its weights are in runs/digits, or are trained there. Printed is the
accuracy that is left at each budget.
"""

import argparse
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn

from lib import attacks, datasets, methods
from lib.config import WhyCertify

BUDGETS = {"linf": (0.05, 0.1, 0.15, 0.2), "l2": (0.25, 0.5, 0.75, 1.0)}


def ours(f: nn.Module, images: Tensor, labels: Tensor, budget: float, norm: str) -> Tensor:
    """Whether f answers each image rightly after PGD up the cross-entropy and the margin, by long and short steps."""
    broken = attacks.answers_wrongly(f, labels)
    moved = [images]
    for loss in (attacks.smoothed_loss(f, labels), attacks.margin_loss(f, labels)):
        for share in (5, 40):
            moved.append(attacks.pgd(loss, images, budget, norm=norm, steps=100, step_size=budget / share, restarts=2))
    return ~broken(attacks.first_that_breaks(broken, images, *moved))


def foolboxes(norm: str) -> dict[str, Callable[[], object]]:
    """Foolbox's attacks in a norm, with its own defaults but for the steps of PGD."""
    from foolbox import attacks as theirs

    if norm == "linf":
        return {"LinfPGD": lambda: theirs.LinfPGD(steps=100), "LinfDeepFool": theirs.LinfDeepFoolAttack}
    return {
        "L2PGD": lambda: theirs.L2PGD(steps=100), "L2DeepFool": theirs.L2DeepFoolAttack,
        "L2CarliniWagner": lambda: theirs.L2CarliniWagnerAttack(steps=500),
    }  # fmt: skip


def foolbox_right(f: nn.Module, images: Tensor, labels: Tensor, budgets: tuple[float, ...], attack: object) -> Tensor:
    """Whether f answers each image rightly after one of foolbox's attacks, (budgets, N)."""
    import foolbox

    torch.manual_seed(0)  # of foolbox's random starts
    model = foolbox.PyTorchModel(f, bounds=(0, 1), device=images.device)
    *_, success = attack(model, images, labels, epsilons=list(budgets))
    return ~success


def compare(f: nn.Module, images: Tensor, labels: Tensor, norm: str) -> pd.DataFrame:
    """Accuracy that is left: a row an attack, ours first, a column a budget."""
    budgets = BUDGETS[norm]
    rows = {"ours": [ours(f, images, labels, budget, norm).float().mean().item() for budget in budgets]}
    for name, attack in foolboxes(norm).items():
        rows[name] = foolbox_right(f, images, labels, budgets, attack()).float().mean(1).tolist()
    return pd.DataFrame(rows, [f"{norm} {budget:g}" for budget in budgets]).T


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    cfg = WhyCertify(images=options.images)
    data = datasets.load_dataset(cfg.dataset)
    images, labels = datasets.stack(data.test, datasets.fixed_subset(len(data.test), 1, cfg.images))
    classifiers = {
        "undefended": methods.noise_trained_classifier(cfg, data, 0.0),
        "adversarial training": methods.adversarially_trained_classifier(cfg, data),
    }
    for name, f in classifiers.items():
        for norm in BUDGETS:
            print(f"{name}, {len(images)} images\n{compare(f, images, labels, norm).map('{:.3f}'.format)}\n")


if __name__ == "__main__":
    main()
