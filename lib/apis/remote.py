"""A service as f: images in, one answer out, each paid once; and the same run again from the log alone."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import httpx2
from torch import Tensor, nn

from lib.apis.budget import Budget
from lib.apis.errors import MissingAnswers, VersionChanged
from lib.apis.png import encoded
from lib.apis.prices import PRICES
from lib.apis.querylog import Answer, QueryLog
from lib.apis.services import Service
from lib.apis.transport import ask
from lib.smoothing import SmoothedClassifier

Say = Callable[[str], None]


class RemoteClassifier(nn.Module):
    """What a service answers, as a base classifier: images (N, C, H, W) -> logits (N, len(classes) + 1), one is 1.

    The answer is the likeliest label (of labels with one score the first of the alphabet), mapped to its place in
    `classes`, lower case; any other label is the last class. `side`: least pixels of the shorter side that are sent,
    at least the service's own. `log`: the file of answers. `budget`: without one nothing is ever sent, and a question
    that the log cannot answer raises MissingAnswers. `say` is told the price before the first query.

    Fixed as f must be: an answer is kept by the SHA-256 of what was sent, so the same image has the same answer for
    ever. A service that answers at random is made a fixed function by that, but its votes are then those of its answers
    in this log. VersionChanged where the service says that its model is another one than the log's,
    or than `version`, where one is given: then it is a part of what f is.
    ValueError for classes that are not distinct.
    """

    def __init__(
        self,
        service: Service,
        classes: Sequence[str],
        *,
        log: str | Path,
        side: int = 1,
        budget: Budget | None = None,
        version: str = "",
        timeout: float = 30.0,
        say: Say | None = None,
    ) -> None:
        super().__init__()
        self.classes = tuple(str(name).lower() for name in classes)
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must be at least one label, each once; got {list(self.classes)}")
        self.service, self.side = service, max(side, service.side)
        self.budget, self.version, self.timeout, self.say = budget, version, timeout, say
        self.log = QueryLog(log)
        self.replaying, self.missing = False, 0
        self.training = False

    @property
    def num_classes(self) -> int:
        """The classes and "anything else"."""
        return len(self.classes) + 1

    def identity(self) -> dict[str, Any]:
        """What decides the answers: the service, a version that was asked for, what is sent, the classes.

        It is the same before the first answer and after it, so that a run goes on with its own record.
        """
        version = {"version": self.version} if self.version else {}
        return self._sent() | version | {"classes": list(self.classes)}

    def __repr__(self) -> str:
        return f"RemoteClassifier({self.service.kind} at {self.service.endpoint}, {len(self.classes)} classes)"

    def _sent(self) -> dict[str, Any]:
        return self.service.identity() | {"preprocessing": f"clip, 8 bits, PNG, RGB, at least {self.side} pixels"}

    def forward(self, images: Tensor) -> Tensor:
        pngs = encoded(images, self.side)
        keys = [self._key(png) for png in pngs]
        if any(key not in self.log.answers for key in keys):
            self._fetch(dict(zip(keys, pngs)))
        logits = images.new_zeros(len(images), self.num_classes)
        for row, key in enumerate(keys):
            logits[row, self._class_of(self.log.answers.get(key))] = 1
        return logits

    def _class_of(self, answer: Answer | None) -> int:
        label = answer[0][0].lower() if answer else ""
        return self.classes.index(label) if label in self.classes else len(self.classes)

    def _key(self, png: bytes) -> str:
        told = json.dumps(self._sent(), sort_keys=True).encode()
        return hashlib.sha256(told + b"\0" + png).hexdigest()

    def _fetch(self, wanted: dict[str, bytes]) -> None:
        """Ask for what the log lacks, some requests side by side, and write each answer down as it comes."""
        with self.log.lock:  # one process at a time: what another has just asked is not asked again
            self.log.refresh()
            lacking = [key for key in wanted if key not in self.log.answers]
            if not lacking:
                return
            if self.replaying:
                self.missing += len(lacking)
                return
            if self.budget is None:
                raise MissingAnswers(len(lacking))
            if self.say and not self.budget.spent:
                price = PRICES[self.service.kind].dollars if self.service.kind in PRICES else 0.0
                self.say(f"{self.service.kind}: {self.budget.announcement(price)}")
            size = self.service.per_request
            self._send([lacking[i : i + size] for i in range(0, len(lacking), size)], wanted, self.budget)

    def _send(self, groups: list[list[str]], wanted: dict[str, bytes], budget: Budget) -> None:
        first: BaseException | None = None
        limits = httpx2.Limits(max_connections=self.service.in_flight)
        with (
            httpx2.Client(timeout=self.timeout, limits=limits) as client,
            ThreadPoolExecutor(self.service.in_flight) as threads,
        ):
            asked: dict[Future, list[str]] = {
                threads.submit(ask, client, self.service, [wanted[key] for key in group], budget): group
                for group in groups
            }
            for future in as_completed(asked):
                if future.cancelled():
                    continue
                try:
                    self._keep(asked[future], *future.result())
                except BaseException as error:
                    first = first or error
                    for other in asked:  # what is under way is still written down, the rest is not begun
                        other.cancel()
        self.log.sync()
        if first:
            raise first

    def _keep(self, keys: list[str], labels: list[Answer], version: str, attempts: int) -> None:
        self.log.append(
            [
                {"key": k, "labels": answer[:5], "version": version, "attempts": attempts}
                for k, answer in zip(keys, labels)
            ]
        )
        if self.version and version != self.version:
            said = f"{self.service.kind} answers by version {version!r}"
            raise VersionChanged(f"{said}, asked for was {self.version!r}")
        if version != self.log.version:
            raise VersionChanged(
                f"{self.service.kind} now answers by version {version!r}, the log {self.log.path} holds answers of "
                f"{self.log.version!r}: start a new log for the new model"
            )


def replay(g: SmoothedClassifier, images: Tensor, ids: Iterable[int] | None = None, **certificate: Any) -> Any:
    """`g.certify` from the log alone, at another alpha, bound or smaller n; nothing is sent.

    g.base is a RemoteClassifier. MissingAnswers, with their number, where the log does not hold all that is needed.
    """
    remote = next((part for part in g.base.modules() if isinstance(part, RemoteClassifier)), None)
    if remote is None:
        raise ValueError("g.base must hold a RemoteClassifier: what runs here needs no replay")
    remote.replaying, remote.missing = True, 0
    try:
        result = g.certify(images, ids, **certificate)
    finally:
        remote.replaying = False
    if remote.missing:
        raise MissingAnswers(remote.missing)
    return result
