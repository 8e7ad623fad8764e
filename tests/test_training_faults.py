"""What can go wrong outside a training, done for real: kills, a full disk, damaged files, two at once.

Each time: what is on the disk stays valid, the message names the file, and the next run ends with the weights that an
undisturbed one gives.
"""

import pytest
import torch
from processes import wait_for
from test_faults import DAMAGE, FULL, emptied, kill, pytestmark, start, truncated  # noqa: F401 (pytest reads the mark)
from test_training import Interrupted, fit, flat, interrupt_after, name, never

from lib.training import weights

# After one epoch, whose end it keeps, it waits for the file `go`.
WAITS = """
import test_training as t
def wait(images, step):
    while step.epoch and not (folder / "go").exists():
        time.sleep(0.02)
t.fit(folder, hook=wait)
"""


def file(folder, suffix):
    return folder / f"{name()}.{suffix}"


def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    process = start(WAITS, tmp_path / "killed")
    resume = file(tmp_path / "killed", "resume")
    wait_for(resume.exists, process)
    kill(process)
    assert resume.exists() and not file(tmp_path / "killed", "safetensors").exists()
    assert torch.equal(flat(fit(tmp_path / "killed")), flat(fit(tmp_path / "whole")))


def test_a_training_on_a_full_disk_ends_with_the_same_weights_once_there_is_room(tmp_path):
    said = start("import test_training as t; t.fit(folder / 'full')", tmp_path, 2000).communicate()[1]
    assert FULL in said and f"{name()}.resume'" in said
    assert not list(tmp_path.glob("full/[!.]*"))
    assert torch.equal(flat(fit(tmp_path / "full")), flat(fit(tmp_path / "whole")))


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights_are_refused_by_name_and_not_trained_over(damage, tmp_path):
    fit(tmp_path)
    path = file(tmp_path, "safetensors")
    path.write_bytes(damaged := damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path} cannot be used: its SHA-256 .*delete it to train again"):
        fit(tmp_path)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("damage", [truncated, emptied])
def test_weights_that_came_without_a_checksum_are_refused_where_they_cannot_be_read(damage, tmp_path):
    fit(tmp_path)
    path = file(tmp_path, "safetensors")
    path.write_bytes(damage(path.read_bytes()))
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=f"{path} cannot be used: "):
        fit(tmp_path)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_training_state_is_refused_by_name(damage, tmp_path):
    with pytest.raises(Interrupted):
        fit(tmp_path, hook=interrupt_after(4))
    path = file(tmp_path, "resume")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path} is damaged: .*Delete it to train from the first epoch"):
        fit(tmp_path)
    path.unlink()
    assert torch.equal(flat(fit(tmp_path)), flat(fit(tmp_path / "whole")))


def test_a_second_process_waits_for_the_training_of_the_first_and_loads_its_weights(tmp_path, monkeypatch):
    warn = weights.warnings.warn
    monkeypatch.setattr(weights.warnings, "warn", lambda *a, **k: ((tmp_path / "go").touch(), warn(*a, **k)))
    process = start(WAITS, tmp_path)
    wait_for(file(tmp_path, "resume").exists, process)
    with pytest.warns(UserWarning, match=f"{name()}.safetensors is being trained by another process"):
        second = fit(tmp_path, hook=never)
    assert process.wait() == 0
    assert torch.equal(flat(second), flat(fit(tmp_path / "whole")))
    assert {path.suffix for path in tmp_path.glob("*.*")} == {".safetensors", ".json"}
