"""The lines that notebooks print of answers and of claims: right ones are taken in any form, wrong ones never raise."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from lib.exercises import check, observe

HALVES = [
    0.5, np.float32(0.5), np.float16(0.5), np.array(0.5), np.array([0.5]), np.array([[0.5]]), [0.5], (0.5,),
    torch.tensor(0.5), torch.tensor([0.5], requires_grad=True), torch.tensor(0.5, dtype=torch.bfloat16),
    pd.Series([0.5]), Fraction(1, 2), Decimal("0.5"),
]  # fmt: skip
WRONG = [
    "0.5", b"0.5", "", ["0.5"], True, np.bool_(False), 1j, np.complex64(0.5), {}, {"p": 0.5}, {0.5}, [], [[]],
    [[1], [1, 2]], [None], np.ones(3), np.ones((1, 2)), torch.ones(2), torch.ones(2, 2).to_sparse(),
    pd.DataFrame({"p": [1, 2]}), np, np.sum, int, lambda: 0.5, object(), 10**400, 0, -0.5, float("nan"), float("inf"),
    np.nan, [np.nan],
    torch.tensor(np.nan), pd.NA, pd.Timestamp("2026-01-01"), range(3), "x" * 10_000,
]  # fmt: skip


@pytest.mark.parametrize("answer", HALVES, ids=repr)
def test_a_right_number_is_taken_in_any_form(answer):
    assert check(answer, 0.5) == "Right."


@pytest.mark.parametrize("answer", WRONG, ids=lambda answer: type(answer).__name__)
@pytest.mark.parametrize("truth", [0.5, 7, np.float32(0.5), np.int64(7), np.array(0.5)], ids=repr)
def test_a_wrong_answer_of_any_kind_gets_a_short_line_that_does_not_say_the_truth(answer, truth):
    line = check(answer, truth)
    assert line.startswith("Not yet: ") and line.endswith(".") and "\n" not in line and len(line) < 150


@pytest.mark.parametrize("answer", [None, ...])
def test_an_answer_that_is_missing_is_asked_for(answer):
    assert check(answer, 0.5).startswith("Not answered yet")


@pytest.mark.parametrize("truth", [0.9111, 1.0049, 9.9951, 1.464163, 0.3747, 123456.0, -2.5049, 1e-12])
def test_three_significant_digits_of_a_float_are_enough_and_two_wrong_ones_too_few(truth):
    assert check(float(f"{truth:.3g}"), truth) == "Right."
    assert check(1.01 * truth, truth) != "Right."


@pytest.mark.parametrize("truth", [339, 218_105, -7, 0, np.int64(339), torch.tensor(339)])
def test_a_whole_number_has_to_be_exact(truth):
    number = int(truth)
    assert {check(form, truth) for form in (number, float(number), np.int64(number), [number])} == {"Right."}
    assert "Right." not in {check(number + wrong, truth) for wrong in (-1, 1, 0.5)}


def test_a_text_is_told_to_lose_its_quotes():
    assert "without quotes" in check("0.5", 0.5)


def test_an_array_is_compared_whole():
    truth = np.array([0.25, 0.5])
    assert check([0.25, 0.5], truth) == "Right."
    assert {check(answer, truth) for answer in ([0.5, 0.25], [0.25], 0.25, [0.25, np.nan])}.isdisjoint({"Right."})


@pytest.mark.parametrize(
    ("holds", "start"),
    [
        (True, "seen here:"), (np.bool_(True), "seen here:"), (torch.tensor(True), "seen here:"),
        (False, "not seen here:"), (None, "not seen here:"), ([False, False], "not seen here:"),
        ([True, False, True], "seen here in 2 of 3 cases:"), (pd.Series([True, True]), "seen here:"),
        ([], "nothing to compare here:"), (np.array([]) > 0, "nothing to compare here:"),
    ],
)  # fmt: skip
def test_an_observation_is_a_line_whatever_was_seen(holds, start):
    assert observe("noise costs accuracy", holds) == f"{start} noise costs accuracy"
