"""An attacked image, kept with what the classifier makes of it, so that a slide can draw it again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from lib import sketches
from lib.config.notebooks import kit_root
from lib.machine.files import atomic_write
from lib.machine.provenance import PROJECT_ROOT

FILE = "attacked.json"


@dataclass(frozen=True)
class Attacked:
    """An image (C, H, W) in [0, 1] before and after an attack, and the probabilities (K,) that f gives then.

    `title`: data set, image and norm; `label`: the place of the true class in `classes`.
    """

    title: str
    classes: list[str]
    label: int
    before: list
    after: list
    f_before: list[float]
    f_after: list[float]

    def save(self, run: Path) -> Path:
        """Write it into a run's folder, as JSON with four digits."""
        rounded = {name: np.round(value, 4).tolist() if isinstance(value, list) and name != "classes" else value
                   for name, value in asdict(self).items()}  # fmt: skip
        atomic_write(run / FILE, json.dumps(rounded, ensure_ascii=False) + "\n")
        return run / FILE

    @classmethod
    def of_run(cls, run: Path | None = None) -> "tuple[Attacked, str]":
        """That of `run`, else of your own runs/digits, else the kit's; and which run it is, by its last two folders."""
        for folder in (run or kit_root() / "runs/digits", PROJECT_ROOT / "results/digits"):
            if (folder / FILE).is_file():
                found = json.loads((folder / FILE).read_text(encoding="utf-8"))
                return cls(**found), "/".join(folder.parts[-2:])
        raise FileNotFoundError(f"no results/digits/{FILE}: python -m lib.run 07_talk, then python -m results.collect")

    def answer(self, when: str) -> str:
        """The class that f answers, "before" or "after"."""
        return self.classes[int(np.argmax(getattr(self, f"f_{when}")))]

    def figure(self) -> Figure:
        """Image, perturbation enlarged four times on grey, and both together; below, f's probabilities."""
        before, after = torch.tensor(self.before), torch.tensor(self.after)
        views = {"x": before, "grey + 4 δ": 0.5 + 4 * (after - before), "x + δ": after}
        bars = {"f at x": self.f_before, "f at x + δ": self.f_after}
        return sketches.images_and_bars(views, bars, self.classes, self.label, self.title)
