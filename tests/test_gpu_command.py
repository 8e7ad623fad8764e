"""`python -m benchmarks.gpu`, tried without a GPU: the command itself at toy size, and the order of its steps."""

import argparse
import os
import subprocess
import sys

import pandas as pd
import pytest
from recommended import ROOT

from benchmarks.gpu import Step, run, steps

PAUSE = ["timeit", "-n1", "-r1", "import time; time.sleep(1)"]
FAIL = ["timeit", "-n1", "-r1", "1 / 0"]


def ends(todo, tmp_path, limit=60.0, together=3):
    """{step: (started, ended, result)} of a run, and what steps.csv says."""
    run(todo, tmp_path, limit, together)
    kept = pd.read_csv(tmp_path / "steps.csv", dtype={"step": str}).set_index("step")["result"]
    return {step.name: (step.started, step.started + step.seconds, step.result) for step in todo}, kept


def test_a_failing_step_stops_no_other_and_the_table_says_which(tmp_path):
    found, kept = ends([Step("bad", FAIL), Step("good", PAUSE)], tmp_path)
    assert kept.to_dict() == {"bad": "code 1", "good": "done"} == {name: row[2] for name, row in found.items()}
    assert "ZeroDivisionError" in (tmp_path / "logs/bad.txt").read_text()


def test_steps_run_side_by_side_but_for_one_that_must_be_alone(tmp_path):
    found, _ = ends([Step("alone", PAUSE, alone=True), Step("a", PAUSE), Step("b", PAUSE)], tmp_path)
    assert found["alone"][1] <= min(found["a"][0], found["b"][0])
    assert found["b"][0] < found["a"][1], "b need not wait for a"


def test_a_step_waits_for_those_before_it_and_for_a_free_place(tmp_path):
    found, _ = ends([Step("a", PAUSE), Step("later", PAUSE, after=("a",)), Step("b", PAUSE)], tmp_path, together=1)
    assert found["later"][0] >= found["a"][1] and found["b"][0] >= found["later"][1]


def test_what_runs_at_the_limit_is_stopped_and_what_waits_is_not_started(tmp_path):
    long = ["timeit", "-n1", "-r1", "import time; time.sleep(100)"]
    found, kept = ends([Step("long", long), Step("next", PAUSE, after=("long",))], tmp_path, limit=1.0)
    assert found["long"][2] == "stopped at the limit" and found["long"][1] - found["long"][0] < 50
    assert kept["next"] == "not started"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    chosen = ["throughput", "01", "fixed"]
    words = ["--toy", "--device", "cpu", "--out", str(folder / "out"), "--steps", *chosen]
    env = os.environ | {"KIT_ROOT": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    return folder, done


def test_the_command_takes_its_steps_on_a_cpu(toy):
    folder, done = toy
    logs = {path.stem: path.read_text()[-2000:] for path in (folder / "out/logs").glob("*.txt")}
    assert done.returncode == 0, (done.stdout, done.stderr, logs)
    assert set(pd.read_csv(folder / "out/steps.csv")["result"]) == {"done"}
    assert list((folder / "runs/toy/records").glob("01_fixed_n_0.25-*.tsv"))
    assert len(pd.read_csv(folder / "out/throughput.csv")) == 1


def test_a_notebook_waits_for_the_trainings_whose_weights_it_takes_up_and_for_no_others(tmp_path):
    options = argparse.Namespace(
        device="cpu", out=tmp_path, toy=True, data=tmp_path, profile="cifar10_fast", steps=None
    )
    made = {step.name: step.after for step in steps(options)}
    assert set(made["01"]) == {f"train {sigma}" for sigma in (0.0, 0.12, 0.25, 0.5, 1.0)}
    assert set(made["02"]) == {*made["01"], "train denoiser"} and set(made["03"]) == {*made["02"], "train diffusion"}
    assert made["fixed"] == ("01",) and set(made["03"]) <= set(made)


def test_an_unknown_step_is_refused(tmp_path):
    words = [sys.executable, "-m", "benchmarks.gpu", "--steps", "04", "--out", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--steps 04: no such step" in done.stderr
