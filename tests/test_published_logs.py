"""The readers and tables against the certification logs that were released with the papers.

The logs are no part of the kit; without a copy in ../shared/data (or $KIT_SHARED_DATA) these tests are
skipped. What they must give stands in results/published, to the printed digit.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest

from lib.records import detect_alpha, read_log, recertify
from lib.tables import abstention_rate, average_certified_radius, certified_accuracy, published

_DATA = Path(os.environ.get("KIT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
_LOGS = _DATA / "certification_logs"
_FILE = ["dataset", "split", "sigma_train", "sigma"]

pytestmark = pytest.mark.skipif(not _LOGS.is_dir(), reason=f"needs the papers' certification logs in {_LOGS}")


def _released(file: pd.Series) -> pd.DataFrame:
    network = {"cifar10": "resnet110", "imagenet": "resnet50"}[file["dataset"]]
    models = _LOGS / "cohen2019_released" / "certify" / file["dataset"] / network
    folder = models / f"noise_{file['sigma_train']:.2f}" / file["split"]
    return read_log(folder / f"sigma_{file['sigma']:.2f}")


def _name(file: pd.Series) -> str:
    return "-".join(map(str, file[_FILE]))


def _ten_thousand(sigma: float) -> pd.DataFrame:
    return read_log(_LOGS / "cohen2019_cifar10_10k" / f"noise_{sigma:.2f}" / f"sigma_{sigma:.2f}")


_FILES = [file for _, file in published("cohen2019_logs_released_files").iterrows()]
_each_file = pytest.mark.parametrize("file", _FILES, ids=map(_name, _FILES))


def _rows(file: pd.Series) -> pd.DataFrame:
    table = published("cohen2019_logs_released")
    return table[(table[_FILE] == file[_FILE]).all(axis=1)]


def _printed(percents: Iterable[float], digits: int) -> list[str]:
    return [f"{value:.{digits}f}" for value in percents]


@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5, 1.0])
def test_the_10k_logs_give_the_published_table(sigma):
    log, table = _ten_thousand(sigma), published("cohen2019_logs_10k").query("sigma == @sigma")
    accuracy = 100 * certified_accuracy(log, table["radius"])
    assert len(log) == 10_000 and len(table) == 10
    assert _printed(accuracy, 2) == _printed(table["certified_accuracy"], 2)
    assert _printed([average_certified_radius(log)] * 10, 3) == _printed(table["average_certified_radius"], 3)
    assert _printed([100 * abstention_rate(log)] * 10, 1) == _printed(table["abstain"], 1)


@_each_file
def test_a_released_log_gives_the_published_accuracies(file):
    rows = _rows(file)
    accuracy = 100 * certified_accuracy(_released(file), rows["radius"])
    assert len(rows) and _printed(accuracy, 1) == _printed(rows["certified_accuracy"], 1)


@_each_file
def test_a_released_log_gives_the_published_summary(file):
    log = _released(file)
    assert len(log) == file["images"]
    assert f"{average_certified_radius(log):.3f}" == f"{file['average_certified_radius']:.3f}"
    assert f"{100 * abstention_rate(log):.1f}" == f"{file['abstain']:.1f}"
    assert log["radius"].max() == file["largest_radius"]


@_each_file
def test_the_ladder_tells_the_alpha_of_a_released_log(file):
    alpha = detect_alpha(_released(file), file["sigma"], 100_000)
    assert alpha == (None if pd.isna(file["alpha"]) else file["alpha"])


@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5, 1.0])
def test_the_10k_logs_were_certified_at_the_papers_alpha(sigma):
    assert detect_alpha(_ten_thousand(sigma), sigma, 100_000) == 0.001


@_each_file
def test_a_log_at_alpha_001_comes_out_as_published_when_certified_again(file):
    log, rows = _released(file), _rows(file)
    if file["alpha"] == 0.01:
        log = recertify(log, file["sigma"], 100_000, 0.01, 0.001)
    accuracy = 100 * certified_accuracy(log, rows["radius"])
    assert _printed(accuracy, 1) == _printed(rows["recertified_accuracy"], 1)
    assert f"{average_certified_radius(log):.3f}" == f"{file['recertified_average_radius']:.3f}"


@pytest.mark.parametrize(("n", "correct", "abstain"), [(100, 65.8, 9.3), (1000, 68.0, 3.1), (10_000, 68.7, 1.1)])
def test_the_predict_logs_give_the_accuracies_of_their_first_450_images(n, correct, abstain):
    log = read_log(_LOGS / f"cohen2019_released/predict/imagenet/resnet50/noise_0.25/test/N_{n}").head(450)
    assert round(100 * log["correct"].mean(), 1) == correct
    assert round(100 * abstention_rate(log), 1) == abstain


def test_both_time_formats_of_the_released_logs_give_seconds():
    bare, duration = (next(f for f in _FILES if _name(f) == name) for name in
                      ("cifar10-test-0.25-0.25", "imagenet-test-0.5-0.5"))  # fmt: skip
    assert 14 <= _released(bare)["time"].median() <= 17
    assert 140 <= _released(duration)["time"].median() <= 160
