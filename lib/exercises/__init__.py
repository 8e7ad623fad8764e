"""What notebooks ask and what they say of an answer and of a claim; neither stops a run."""

from typing import Any

from lib.config.fields import refuse_unknown
from lib.exercises import attacking, certificates, denoising, diffusion, presenting, querying, smoothing, training
from lib.exercises.claims import observe
from lib.exercises.exercise import Exercise

__all__ = ["EXERCISES", "Exercise", "check", "observe"]

EXERCISES: dict[str, Exercise] = {
    exercise.name: exercise
    for room in (attacking, smoothing, denoising, diffusion, training, certificates, querying, presenting)
    for exercise in room.EXERCISES
}


def check(name: str, answer: Any) -> str:
    """A line for the reader about an answer to the exercise of that name: see `Exercise.judge`.

    ValueError where no exercise has the name. Nothing else raises an error, whatever the answer is.
    """
    refuse_unknown([name], EXERCISES, "exercise")
    return EXERCISES[name].judge(answer)
