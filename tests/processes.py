"""Child processes of the tests: waits that a loaded machine keeps, and Ctrl-C that works under `nohup make test &`."""

import signal
import subprocess
import time
from collections.abc import Callable

PATIENCE = 600  # seconds: only a hung process takes as long, whatever else the machine does


def start(command: list[str], **options) -> subprocess.Popen:
    """A process that Ctrl-C stops, also where the tests themselves were told to ignore it."""
    return subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen | None = None) -> None:
    """Return once `condition()` holds; fail where the process ends before, or it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > deadline:
            said = process.communicate()[1] if ended else ""
            raise AssertionError(f"{'the process ended' if ended else 'nothing happened'}: {said}")
        time.sleep(0.02)
