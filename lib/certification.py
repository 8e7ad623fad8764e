"""Certify a data set into a record: the loop that users wait for, killed and resumed at will."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from lib.bounds import StoppingRule
from lib.datasets import stack
from lib.machine.provenance import describe
from lib.models.identity import weights_hash
from lib.records import Record, Row, read_log
from lib.sampling import NOISE_SCHEME
from lib.smoothing import Certificates, SmoothedClassifier


class Here:
    """Where certification takes place: in this process. `lib.cluster.Workers` is the other place."""

    def rows(
        self, classifier: SmoothedClassifier, dataset: Dataset, groups: Iterable[Sequence[int]], how: Mapping
    ) -> Iterable[list[Row]]:
        """The rows of each group, in order; `how` are the other arguments of `certify_group`."""
        return (certify_group(classifier, dataset, group, **how) for group in groups)

    def describe(self, device: str) -> dict:
        """The versions and the device that the rows were made with."""
        return describe(device)


def certify_dataset(
    classifier: SmoothedClassifier,
    dataset: Dataset,
    ids: Sequence[int],
    path: str | Path,
    *,
    n0: int,
    n: int,
    alpha: float,
    rule: StoppingRule | None = None,
    two_class: bool = False,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
    facts: Mapping[str, object] | None = None,
    where: Here | None = None,
) -> pd.DataFrame:
    """CERTIFY images `ids` of `dataset` and return their log; what an earlier process has done is read, not done again.

    The record is <path>-<hash>.tsv, the hash being that of everything that decides the counts: weights, sigma, seed,
    sample sizes, stopping rule, data set facts. Another setting is another file, so nothing is overwritten and nothing
    stale is read.
    `rule`: `AtRadii` or `Tolerance` of lib.sequential stops each image at its own time, after n samples at the latest;
    without a rule every image gets n. `two_class`: bound the runner-up too, see `SmoothedClassifier.certify`. The
    guarantee at level alpha is the same in each case.
    `facts`: more of what should be in the manifest, such as {"dataset": "digits", "arch": "digits_cnn"}.
    `progress` is told the number of images done. `where`: `lib.cluster.Workers(client)` for a cluster, else here.
    """
    how = {"n0": n0, "n": n, "alpha": alpha, "rule": rule, "two_class": two_class, "device": str(device)}
    parameters = _parameters(classifier, **how) | dict(facts or {})
    path, where = Path(path), where or Here()
    with Record(path.with_name(f"{path.name}-{_digest([parameters, list(ids)])}.tsv"), parameters, ids) as record:
        todo, tell = set(record.todo), progress or (lambda done: None)
        # groups with an image that the record lacks; the first of them may have others that it holds already
        groups = [group for group in _groups(ids, classifier.batch_size, n0, rule) if group[-1] in todo]
        tell(len(record.done))
        for rows in where.rows(classifier, dataset, groups, how):
            record.append(row for row in rows if row.idx in todo)
            tell(len(record.done))
        if not record.complete:
            record.finish(where.describe(str(device)))
    return read_log(record.path)


def _groups(ids: Sequence[int], batch_size: int, n0: int, rule: StoppingRule | None) -> list[Sequence[int]]:
    """Images certified together: enough that the n0 samples of a group fill a batch.

    With a stopping rule eight times as many, since most of them stop early: later rounds then fill batches too.

    Groups start at fixed places, also after a crash: a batch then holds the same samples again, and floating point,
    which may depend on a batch's shape, gives the same votes.
    """
    size = max(1, -(-batch_size // n0)) * (8 if rule else 1)
    return [ids[first : first + size] for first in range(0, len(ids), size)]


def certify_group(
    classifier: SmoothedClassifier,
    dataset: Dataset,
    ids: Sequence[int],
    n0: int,
    n: int,
    alpha: float,
    rule: StoppingRule | None,
    two_class: bool,
    device: torch.device | str,
) -> list[Row]:
    """The rows of one group: the unit of work, here or on a worker of a cluster."""
    started = time.perf_counter()
    images, labels = stack(dataset, ids)
    if rule is None:
        result = classifier.certify(images.to(device), ids, n0, n, alpha, two_class=two_class)
    else:
        result = classifier.certify_sequential(images.to(device), ids, n0, n, alpha, rule, two_class=two_class)
    n_each = np.broadcast_to(result.n, len(ids)).astype(int)
    seconds = (time.perf_counter() - started) * (n0 + n_each) / (n0 + n_each).sum()
    common = {"n0": n0, "sigma": classifier.sigma, "alpha": alpha, "seed": classifier.seed}
    each = zip(ids, labels.tolist(), n_each.tolist(), seconds, strict=True)
    return [_row(result, i, idx=idx, label=label, n=n, time=t, **common) for i, (idx, label, n, t) in enumerate(each)]


def _row(result: Certificates, i: int, **common: object) -> Row:
    return Row(
        predict=int(result.predict[i]), radius=float(result.radius[i]), selected=int(result.selected[i]),
        n_a=int(result.n_a[i]), n_b=int(result.n_b[i]), **common,
    )  # fmt: skip


def _parameters(
    classifier: SmoothedClassifier,
    n0: int,
    n: int,
    alpha: float,
    rule: StoppingRule | None,
    two_class: bool,
    device: torch.device | str,
) -> dict[str, object]:
    scheme = f"philox, grid of step 1/{classifier.levels}" if classifier.levels else NOISE_SCHEME
    # A fixed n is the absence of a rule, and one class that of two, so that such records keep their names.
    special = {"rule": {"name": type(rule).__name__} | asdict(rule)} if rule else {}
    special |= {"bound": "two-class"} if two_class else {}
    return special | {
        "weights": weights_hash(classifier.base),
        "compute": getattr(classifier.base, "compute", "as torch is set"),
        "sigma": classifier.sigma,
        "n0": n0,
        "n": n,
        "alpha": alpha,
        "seed": classifier.seed,
        "noise": f"{scheme} on {torch.device(device).type}",
        "batch_size": classifier.batch_size,
    }


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
