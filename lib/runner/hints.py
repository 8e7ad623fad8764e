"""What the lab adds to an error that a beginner meets: a sentence that says what to do. An extension of IPython's."""

from types import TracebackType
from typing import Any


def load_ipython_extension(shell: Any) -> None:
    """Have the shell of a kernel explain these errors."""
    shell.set_custom_exc((NameError, KeyboardInterrupt, ValueError), explain)


def explain(shell: Any, kind: type[BaseException], error: BaseException, trace: TracebackType, **where: Any) -> None:
    """Show an error with its hint; of a wrong parameter the sentence alone, for the frames are ours."""
    if said := hint(error):
        error.add_note(said)
    alone = isinstance(error, ValueError) and raised_in(trace).startswith("lib.config")
    shell.showtraceback((kind, error, trace), exception_only=alone, **({} if alone else where))


def hint(error: BaseException) -> str:
    """What to do after this error, or ""."""
    if isinstance(error, NameError):
        made = f"{error.name!r} comes from" if error.name else "This needs"
        return f"{made} a cell above, if it is not misspelt: Run > Run All Above Selected Cell, then this cell again."
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted. Run the cell again: what was finished is kept, and it goes on from there."
    return ""


def raised_in(trace: TracebackType | None) -> str:
    """The module that raised."""
    name = ""
    while trace is not None:
        name, trace = str(trace.tb_frame.f_globals.get("__name__", "")), trace.tb_next
    return name
