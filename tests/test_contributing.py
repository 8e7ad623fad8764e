"""CONTRIBUTING's worked example does what it says, and every file, test and table that it names is there."""

import re
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_the_worked_example_trains_and_certifies(tmp_path, monkeypatch):
    (tmp_path / "any_level.py").write_text(BLOCKS[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    from any_level import AnyLevel

    names = {"AnyLevel": AnyLevel}
    exec(BLOCKS[1], names)
    assert len(names["log"]) == 20 and names["log"]["correct"].mean() > 0.4
    assert not any(parameter.requires_grad for parameter in names["f"].parameters())
    assert len(list(Path("runs/any_level/weights").glob("*.safetensors"))) == 1
    assert len(list(Path("runs/any_level/records").glob("any_level_0.5-*.tsv"))) == 1


def test_the_examples_noise_is_drawn_by_the_steps_generator_alone(tmp_path, monkeypatch):
    from lib.training.objectives import Step

    (tmp_path / "any_level_too.py").write_text(BLOCKS[0])
    monkeypatch.syspath_prepend(tmp_path)
    from any_level_too import AnyLevel

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    images, labels = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    losses = [AnyLevel(0.5)(model, images, labels, Step(torch.Generator().manual_seed(7), 0, 0, 1)) for _ in range(2)]
    assert losses[0] == losses[1]


def test_every_file_that_is_named_is_there():
    named = re.findall(r"`((?:lib|tests|profiles)/[a-z\d_/.]+\.(?:py|yaml))`", TEXT)  # NAME.py stands for any
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == ["lib/training/objectives/any_level.py"]


def test_every_table_that_is_named_is_there():
    source = "".join(path.read_text() for path in (ROOT / "lib").rglob("*.py"))
    tables = {"BOUNDS", "NOISES", "CLASSIFIERS", "DENOISERS", "NOTEBOOKS"}
    assert all(f"`{table}`" in TEXT and re.search(rf"^{table}\b.* = ", source, re.M) for table in tables)
