"""One way to ask every service: one retry policy, a budget counted before each attempt, no key in any words."""

import email.utils
import json
import time
from collections.abc import Sequence

import httpx2
import tenacity

from lib.apis.budget import Budget
from lib.apis.errors import Retryable
from lib.apis.querylog import Answer
from lib.apis.services import Service

_jitter = tenacity.wait_exponential_jitter(multiplier=0.2, max=5)


def _wait(state: tenacity.RetryCallState) -> float:
    """Longer from attempt to attempt, and at least as long as the service asked for."""
    error = state.outcome.exception() if state.outcome else None
    return max(_jitter(state), getattr(error, "after", None) or 0.0)


def ask(
    client: httpx2.Client, service: Service, pngs: Sequence[bytes], budget: Budget, *, attempts: int = 5
) -> tuple[list[Answer], str, int]:
    """(the labels of each image, the model's version, how many attempts it took) of one request.

    Retried are time-outs, dropped connections, HTTP 408, 429 and 5xx, throttles by any name, and answers that are no
    JSON or not the expected one; Retry-After is honoured. Every attempt counts against the budget, because a service
    may bill it. Refused, Retryable after the last attempt, BudgetSpent.
    """
    taken = 0

    def once() -> tuple[list[Answer], str]:
        nonlocal taken
        budget.take(len(pngs))
        taken += 1
        return _once(client, service, pngs)

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(attempts), wait=_wait, retry=tenacity.retry_if_exception_type(Retryable),
        reraise=True,
    )  # fmt: skip
    labels, version = retrying(once)
    return labels, version, taken


def _once(client: httpx2.Client, service: Service, pngs: Sequence[bytes]) -> tuple[list[Answer], str]:
    url, headers, content = service.request(pngs)
    try:
        response = client.post(url, headers=headers, content=content)
    except httpx2.TransportError as error:
        raise Retryable(f"{service.kind}: {type(error).__name__}: {error}") from error
    try:
        body = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        body = response.text[:300]
    fault = service.fault(response.status_code, body)
    if fault:
        fault.args = (_without(service.keys(), str(fault)),)
        if isinstance(fault, Retryable):
            fault.after = _after(response.headers.get("retry-after"))
        raise fault
    try:
        labels, version = service.answers(body)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        said = _without(service.keys(), str(body)[:200])
        raise Retryable(f"{service.kind}: this is not the answer that was expected: {said}") from error
    if len(labels) != len(pngs) or not all(labels):
        raise Retryable(f"{service.kind}: {len(pngs)} images were sent, and there are labels for {len(labels)}")
    return labels, version


def _after(said: str | None) -> float | None:
    """Retry-After in seconds: a number or a date."""
    if said is None:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        date = email.utils.parsedate_to_datetime(said) if email.utils.parsedate(said) else None
        return max(0.0, date.timestamp() - time.time()) if date else None


def _without(keys: Sequence[str], text: str) -> str:
    for key in keys:
        text = text.replace(key, "***")
    return text
