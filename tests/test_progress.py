"""Progress reports: one policy, set by KIT_PROGRESS."""

import time

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


def test_an_unknown_policy_is_refused(reports):
    with pytest.raises(ValueError, match="KIT_PROGRESS = 'loud': expected one of bar, log, off"):
        reports("loud")
