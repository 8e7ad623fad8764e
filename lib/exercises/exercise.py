"""An exercise: what is asked, the truth, the mistakes that people make, and the line that answers an answer."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lib.exercises.numbers import difference

Cases = Sequence[tuple[Any, ...]]
DIFFICULTIES = ("easy", "medium", "hard")
UNFILLED = "Not answered yet: replace the ... above and run the cell again."


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook, by its name, such as "01.lower_bound".

    Of a number (or an array, or a tuple of both): `truth()` is the right one and each of `mistakes` gives a wrong one.
    Of a function: `cases` are the arguments that it is tried with, `truth` is the right function, and each of
    `mistakes` a wrong one. Cases that a call uses up, such as a generator of noise, come from a function that makes
    them anew. A mistake's key is the sentence that names it. `rtol`: how far floats may be off; 5e-3 is three digits.
    `otherwise`: what to return where a function returned nothing.
    """

    name: str
    minutes: int
    difficulty: str  # one of DIFFICULTIES
    truth: Callable[..., Any]
    mistakes: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    cases: Cases | Callable[[], Cases] = ()
    rtol: float = 5e-3
    otherwise: str = "let every path through the function return an answer."

    @property
    def of_function(self) -> bool:
        """Whether the reader writes a function."""
        return bool(self.cases)

    def fresh_cases(self) -> Cases:
        """The cases, untouched by whoever had them before."""
        return self.cases() if callable(self.cases) else [copy.deepcopy(case) for case in self.cases]

    def judge(self, answer: Any) -> str:
        """A line for the reader: not answered yet, right, or not yet, with the mistake's name where it is known.

        It never says what the truth is, and no answer raises an error.
        """
        if answer is None or answer is ... or answer is NotImplemented:
            return UNFILLED
        return self._judge_function(answer) if self.of_function else self._judge_value(answer)

    def _judge_value(self, answer: Any) -> str:
        said = difference(answer, self.truth(), self.rtol)
        if not said:
            return "Right."
        for rtol in (self.rtol / 10, self.rtol):  # two mistakes may lie close to each other
            for sentence, mistake in self.mistakes.items():
                theirs = mistake()
                if not difference(answer, theirs, rtol) and not (_is_whole(answer) and not _is_whole(theirs)):
                    return f"Not yet: {sentence}"
        return f"Not yet: {said}"

    def _judge_function(self, answer: Any) -> str:
        if not callable(answer):
            return f"Not yet: a function is asked for, this is a {type(answer).__name__}."
        mine, right = self._outcomes(answer), self._outcomes(self.truth)
        empty = [i for i, outcome in enumerate(mine) if _is_unfilled(outcome)]
        if len(empty) == len(mine):
            return "Not answered yet: fill in the function, let it return its answer, and run the cell again."
        if empty:
            return f"Not yet: it returns nothing for {_shown(self.fresh_cases()[empty[0]])}; {self.otherwise}"
        wrong = [i for i in range(len(mine)) if _unequal(mine[i], right[i], self.rtol)]
        if not wrong:
            return "Right."
        for sentence, mistake in self.mistakes.items():
            theirs = self._outcomes(mistake)
            if not any(_unequal(one, other, self.rtol) for one, other in zip(mine, theirs)):
                return f"Not yet: {sentence}"
        case, fault = self.fresh_cases()[wrong[0]], _unequal(mine[wrong[0]], right[wrong[0]], self.rtol)
        verb = "is" if len(wrong) == 1 else "are"
        count = f"{len(wrong)} of {len(mine)} cases {verb} wrong" if len(mine) > 1 else "the one case is wrong"
        advice = " It changes what it is given: work on a copy." if self._changes_its_input(answer) else ""
        return f"Not yet: {count}. {_shown(case)} gives {_described(mine[wrong[0]])}: {fault}{advice}"

    def _changes_its_input(self, function: Callable[..., Any]) -> bool:
        """Whether a call leaves other arguments behind than it found."""
        used = self.fresh_cases()
        for case in used:
            _outcome(function, case)
        return not callable(self.cases) and repr(used) != repr(self.fresh_cases())

    def _outcomes(self, function: Callable[..., Any]) -> list[Any]:
        """What a function makes of each case: its value, or the error that it raises."""
        return [_outcome(function, case) for case in self.fresh_cases()]


def _outcome(function: Callable[..., Any], case: tuple[Any, ...]) -> Any:
    try:
        return function(*case)
    except Exception as error:  # a reader may write anything
        return error


def _is_whole(value: Any) -> bool:
    """Whether a single number has nothing behind the point: near a fraction it is still no fraction."""
    try:
        return float(value).is_integer()
    except (TypeError, ValueError):
        return False


def _is_unfilled(outcome: Any) -> bool:
    """Whether this came out of a stub: nothing, the dots themselves, or an error that is about them."""
    if isinstance(outcome, Exception):
        return isinstance(outcome, NotImplementedError) or "ellipsis" in str(outcome).lower()
    parts = outcome if isinstance(outcome, tuple) and outcome else (outcome,)
    return any(part is None or part is ... for part in parts)


def _unequal(mine: Any, other: Any, rtol: float) -> str:
    """What is wrong with `mine`, or "" for equal outcomes."""
    if isinstance(mine, Exception):
        same = type(mine) is type(other) and str(mine) == str(other)
        return "" if same else "a value is asked for."
    return "this is an error elsewhere." if isinstance(other, Exception) else difference(mine, other, rtol)


def _described(outcome: Any) -> str:
    """An outcome and its kind, in a few words on one line."""
    if isinstance(outcome, Exception):
        return _one_line(f"{type(outcome).__name__} ({outcome})", 120)
    return f"{_shown(outcome)} ({type(outcome).__name__})"


def _shown(value: Any) -> str:
    """A value as a reader would write it; a large one by its shape."""
    shape = getattr(value, "shape", ())
    shape = tuple(shape) if isinstance(shape, tuple) else ()
    if len(shape) > 1 or any(size > 12 for size in shape):
        return f"a {type(value).__name__} of shape {shape}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    if isinstance(value, float):
        return f"{value:.6g}"
    try:
        return _one_line(repr(value.tolist() if shape else value), 60)
    except Exception:  # a class of the reader's own
        return f"a {type(value).__name__}"


def _one_line(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]} …"
