"""Progress reports: one policy, set by KIT_PROGRESS."""

import time
from types import SimpleNamespace

import pytest

from lib.machine.progress import progress


@pytest.fixture
def reports(monkeypatch, capsys):
    """What a loop of `total` steps writes under a policy, as (stdout, stderr)."""

    def run(policy, total=200, step=1):
        if policy is None:
            monkeypatch.delenv("KIT_PROGRESS", raising=False)
        else:
            monkeypatch.setenv("KIT_PROGRESS", policy)
        report = progress(total, "certify")
        for done in range(step, total + step, step):
            report(min(done, total))
        return capsys.readouterr()

    return run


def test_off_writes_nothing(reports):
    assert reports("off") == ("", "")


def test_log_writes_a_line_for_each_tenth(reports):
    lines = reports("log").err.splitlines()
    assert (len(lines), lines[0], lines[-1]) == (10, "certify: 10 % (20/200)", "certify: 100 % (200/200)")


def test_log_skips_tenths_that_one_step_passes(reports):
    assert len(reports("log", total=10, step=7).err.splitlines()) == 2


def test_the_bar_is_the_default_and_ends_at_the_total(reports):
    shown = reports(None)
    assert shown.out == ""
    assert "certify: 100%" in shown.err and "200/200" in shown.err


@pytest.mark.parametrize("policy", ["off", "log", "bar"])
def test_nothing_to_do_shows_nothing(policy, monkeypatch, capsys):
    monkeypatch.setenv("KIT_PROGRESS", policy)
    progress(200, "train")
    assert capsys.readouterr() == ("", "")


def test_a_bar_without_steps_is_closed_by_its_first_report(reports, monkeypatch, capsys):
    monkeypatch.setenv("KIT_PROGRESS", "bar")
    progress(0, "certify")(0)
    assert capsys.readouterr().err.endswith("\n")


def test_the_time_before_the_first_report_counts(monkeypatch, capsys):
    monkeypatch.setenv("KIT_PROGRESS", "bar")
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: now - 50)
        report = progress(2, "certify")
    report(1)
    report(2)
    assert "00:50" in capsys.readouterr().err


class Cell:
    """A kernel's shell with the outputs of a cell: what each shows, in the order in which they came."""

    def __init__(self):
        self.kernel, self.events, self.outputs, self.callbacks = True, self, [], []

    def register(self, event, callback):
        self.callbacks.append(callback)

    def unregister(self, event, callback):
        self.callbacks.remove(callback)

    def display(self, bundle, raw, display_id):
        self.outputs.append(bundle)
        place = len(self.outputs) - 1
        return SimpleNamespace(update=lambda bundle, raw: self.outputs.__setitem__(place, bundle))


@pytest.fixture
def cell(monkeypatch):
    shell = Cell()
    monkeypatch.delenv("KIT_PROGRESS", raising=False)
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr("IPython.display.display", shell.display)
    monkeypatch.setattr("lib.machine.progress.INTERVAL", 0.0)
    return shell


def test_in_a_notebook_it_is_one_line_that_goes_away_at_the_end(cell, capsys):
    report = progress(40, "certify <a>")
    for done in range(1, 40):
        report(done)
    (line,) = [output["text/plain"] for output in cell.outputs]
    assert line.startswith("certify &lt;a&gt;: 39 of 40, 0:00 left")
    report(40)
    assert cell.outputs == [{}] and cell.callbacks == [] and capsys.readouterr() == ("", "")


def test_in_a_notebook_it_goes_away_when_the_cell_ends_before_it(cell):
    report = progress(40, "certify")
    report(3)
    for callback in list(cell.callbacks):
        callback("result")
    assert cell.outputs == [{}] and cell.callbacks == []


@pytest.mark.parametrize("done", [None, 40])
def test_in_a_notebook_what_is_done_already_shows_nothing(cell, done):
    report = progress(40, "certify")
    if done:
        report(done)
    assert cell.outputs == []


def test_an_unknown_policy_is_refused(reports):
    with pytest.raises(ValueError, match="KIT_PROGRESS = 'loud': expected one of bar, log, off"):
        reports("loud")
