"""The lines that notebooks print of answers and of claims: right ones are taken in any form, wrong ones never raise."""

import re
from contextlib import redirect_stdout
from decimal import Decimal
from fractions import Fraction
from io import StringIO

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from printed_exercises import NOTEBOOKS, imports, printed

from lib.exercises import EXERCISES, Exercise, check, observe
from lib.exercises.exercise import DIFFICULTIES
from lib.models.diffusion import cumulative_alphas
from lib.models.openai_unet import PUBLISHED

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


def judged(answer, truth, **more):
    return Exercise("a", 1, "easy", lambda: truth, **more).judge(answer)


# ---- numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", HALVES, ids=repr)
def test_a_right_number_is_taken_in_any_form(answer):
    assert judged(answer, 0.5) == "Right."


@pytest.mark.parametrize("answer", WRONG, ids=lambda answer: type(answer).__name__)
@pytest.mark.parametrize("truth", [0.5, 7, np.float32(0.5), np.int64(7), np.array(0.5)], ids=repr)
def test_a_wrong_answer_of_any_kind_gets_a_short_line_that_does_not_say_the_truth(answer, truth):
    line = judged(answer, truth)
    assert line.startswith("Not yet: ") and line.endswith(".") and "\n" not in line and len(line) < 150


@pytest.mark.parametrize("answer", [None, ...])
def test_an_answer_that_is_missing_is_asked_for(answer):
    assert judged(answer, 0.5).startswith("Not answered yet")


@pytest.mark.parametrize("truth", [0.9111, 1.0049, 9.9951, 1.464163, 0.3747, 123456.0, -2.5049, 1e-12])
def test_three_significant_digits_of_a_float_are_enough_and_two_wrong_ones_too_few(truth):
    assert judged(float(f"{truth:.3g}"), truth) == "Right."
    assert judged(1.01 * truth, truth) != "Right."


@pytest.mark.parametrize("truth", [339, 218_105, -7, 0, np.int64(339), torch.tensor(339)])
def test_a_whole_number_has_to_be_exact(truth):
    number = int(truth)
    assert {judged(form, truth) for form in (number, float(number), np.int64(number), [number])} == {"Right."}
    assert "Right." not in {judged(number + wrong, truth) for wrong in (-1, 1, 0.5)}


def test_a_text_is_told_to_lose_its_quotes():
    assert "without quotes" in judged("0.5", 0.5)


def test_an_array_is_compared_whole():
    truth = np.array([0.25, 0.5])
    assert judged([0.25, 0.5], truth) == "Right."
    assert {judged(answer, truth) for answer in ([0.5, 0.25], [0.25], 0.25, [0.25, np.nan])}.isdisjoint({"Right."})


def test_a_tuple_is_compared_part_by_part():
    assert judged((3, 0.25), (3, 0.25)) == judged([3.0, 0.2501], (3, 0.25)) == "Right."
    assert "number 2" in judged((3, 0.5), (3, 0.25)) and "3 values" not in judged((3, 0.5), (3, 0.25))
    assert "2 values are asked for" in judged(3, (3, 0.25)) and "these are 1" in judged((3,), (3, 0.25))


def test_a_mistake_that_is_known_is_named():
    mistakes = {"this is the upper bound.": lambda: 0.7, "this is a share.": lambda: 0.6}
    assert judged(torch.tensor(0.7), 0.5, mistakes=mistakes) == "Not yet: this is the upper bound."
    assert judged(0.65, 0.5, mistakes=mistakes) == "Not yet: 0.65 is not it."


# ---- functions -------------------------------------------------------------------------------------------------


def double(x):
    return 2 * x


DOUBLE = Exercise("a", 1, "easy", double, {"this is the square.": lambda x: x * x}, [(1.0,), (2.0,), (3.0,)])


def unfilled(x):
    votes = ...
    return votes.argmax()


def missing(x):
    raise NotImplementedError


@pytest.mark.parametrize("stub", [..., None, lambda x: ..., lambda x: None, lambda x: (..., 1), unfilled, missing])
def test_a_stub_is_asked_for(stub):
    assert DOUBLE.judge(stub).startswith("Not answered yet")


@pytest.mark.parametrize("right", [double, lambda x: torch.tensor([2 * x]), lambda x: np.float32(2.001 * x)])
def test_a_right_function_is_right_in_any_form(right):
    assert DOUBLE.judge(right) == "Right."


def test_a_wrong_function_is_told_the_case_and_what_came_out_or_the_name_of_its_mistake():
    assert DOUBLE.judge(lambda x: x**2) == "Not yet: this is the square."
    assert DOUBLE.judge(lambda x: 2.0) == "Not yet: 2 of 3 cases are wrong. (2) gives 2 (float): 2 is not it."
    assert "(1) gives ZeroDivisionError (float division by zero): a value is asked for." in DOUBLE.judge(
        lambda x: x / 0
    )
    assert "TypeError" in DOUBLE.judge(lambda: 1) and "a function is asked for" in DOUBLE.judge(2.0)


def test_a_function_that_returns_nothing_in_places_is_told_where_and_what_to_return_there():
    sometimes = Exercise("x", 1, "easy", lambda x: -x, cases=[(1.0,), (2.0,)], otherwise="return -1 there.")
    assert sometimes.judge(lambda x: -x if x < 2 else None) == "Not yet: it returns nothing for (2); return -1 there."
    assert sometimes.judge(lambda x: None).startswith("Not answered yet")


def test_one_wrong_case_is_wrong_and_two_are():
    one = Exercise("x", 1, "easy", lambda x: -x, cases=[(1.0,), (2.0,), (3.0,)])
    assert one.judge(lambda x: -x if x < 3 else 7.0).startswith("Not yet: 1 of 3 cases is wrong.")
    assert one.judge(lambda x: -x if x < 2 else 7.0).startswith("Not yet: 2 of 3 cases are wrong.")


def test_a_whole_number_near_a_fraction_is_not_told_to_be_rounded():
    samples = Exercise("x", 1, "easy", lambda: 218_105, mistakes={"Round up.": lambda: 218_104.67})
    assert samples.judge(218_104.67) == "Not yet: Round up."
    assert "Round" not in samples.judge(218_106)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda answer: type(answer).__name__)
def test_a_function_that_gives_anything_gets_a_line(wrong):
    line = DOUBLE.judge(lambda x: wrong)
    assert line.startswith("Not yet: ") and "\n" not in line and len(line) < 300


def test_a_function_that_changes_its_arguments_is_tried_on_fresh_ones():
    def spoil(votes):
        votes += 1
        return int(votes.sum())

    total = Exercise("a", 1, "easy", lambda votes: int(votes.sum()) + 2, cases=[(np.array([1, 2]),)] * 2)
    assert total.judge(spoil) == total.judge(spoil) == "Right."


def test_cases_that_a_call_uses_up_are_made_anew():
    draw = lambda generator: torch.rand(3, generator=generator)  # noqa: E731
    cases = lambda: [(torch.Generator().manual_seed(0),)]  # noqa: E731
    noise = Exercise("a", 1, "easy", draw, {"this is twice that.": lambda g: 2 * draw(g)}, cases)
    assert noise.judge(draw) == "Right." and "twice" in noise.judge(lambda g: 2 * draw(g))


def test_a_name_that_no_exercise_has_is_refused():
    with pytest.raises(ValueError, match=r"unknown exercise: '01.lowerbound'; did you mean '01.lower_bound'"):
        check("01.lowerbound", 1)


# ---- those of the notebooks ------------------------------------------------------------------------------------

OPENED = {path.stem: nbformat.read(path, as_version=4) for path in NOTEBOOKS}
PRINTED = [(stem, one) for stem, notebook in OPENED.items() for one in printed(notebook)]
MISTAKES = [(exercise, sentence) for exercise in EXERCISES.values() for sentence in exercise.mistakes]
MADE_ABOVE = {  # by cells further up, for solutions that use it
    "schedules": {"ImageNet, published": cumulative_alphas(PUBLISHED["256x256_diffusion_uncond.pt"].config.scheduler())}
}
of_notebooks = pytest.mark.parametrize(("stem", "one"), PRINTED, ids=[one.name for _, one in PRINTED])


def said(stem, source):
    """What a cell prints, with the notebook's imports before it."""
    names, output = dict(MADE_ABOVE), StringIO()
    exec(imports(OPENED[stem]), names)
    with redirect_stdout(output):
        exec(source, names)
    return output.getvalue()


def test_every_exercise_is_in_its_notebook_once():
    assert sorted(one.name for _, one in PRINTED) == sorted(EXERCISES)
    assert [one.name for stem, one in PRINTED if one.name[:3] != f"{stem[:2]}."] == []


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_the_truth_is_right_and_three_mistakes_are_known(exercise):
    assert exercise.judge(exercise.truth if exercise.of_function else exercise.truth()) == "Right."
    assert len(exercise.mistakes) >= 3 and exercise.difficulty in DIFFICULTIES


@pytest.mark.parametrize(("exercise", "sentence"), MISTAKES, ids=[f"{one.name}-{text[:30]}" for one, text in MISTAKES])
def test_every_mistake_is_answered_with_its_own_sentence(exercise, sentence):
    mistake = exercise.mistakes[sentence]
    assert exercise.judge(mistake if exercise.of_function else mistake()) == f"Not yet: {sentence}"


@of_notebooks
def test_the_stub_is_not_answered_yet(stem, one):
    assert said(stem, one.stub).startswith("Not answered yet")


@of_notebooks
def test_the_printed_solution_is_right(stem, one):
    assert said(stem, one.solved).splitlines()[0] == "Right."


@of_notebooks
def test_the_task_says_minutes_and_difficulty_and_two_hints_are_folded(stem, one):
    exercise = EXERCISES[one.name]
    assert f"{exercise.minutes} minutes" in one.task and exercise.difficulty in one.task
    assert {"Hint 1", "Hint 2", "Solution"} <= set(re.findall(r"<summary>(.*?)</summary>", one.below))


# ---- claims ----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("name", "answer"), [
    ("01.certify", lambda first, fresh, sigma, alpha: (int(first.sort() or 0), 1.0)),
    ("01.predict", lambda votes, alpha: int(votes.sort() or votes.argmax())),
])  # fmt: skip
def test_a_function_that_changes_what_it_is_given_is_told_so(name, answer):
    said = check(name, answer)
    assert said.startswith("Not yet: ") and said.endswith("It changes what it is given: work on a copy.")
