"""Certify a data set into a record: the loop that users wait for, killed and resumed at will."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from lib.environment import describe
from lib.records import Record, Row, read_log
from lib.sampling import NOISE_SCHEME
from lib.smoothing import ABSTAIN, Certificates, SmoothedClassifier, radius_from_counts


def certify_dataset(
    classifier: SmoothedClassifier,
    dataset: Dataset,
    ids: Sequence[int],
    path: str | Path,
    *,
    n0: int,
    n: int,
    alpha: float,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
    facts: Mapping[str, object] | None = None,
) -> pd.DataFrame:
    """CERTIFY images `ids` of `dataset` and return their log; what an earlier process has done is read, not done again.

    The record is <path>-<hash>.tsv, the hash being that of everything that decides the counts: weights, sigma, seed,
    sample sizes, data set facts. Another setting is another file, so nothing is overwritten and nothing stale is read.
    `facts`: more of what should be in the manifest, such as {"dataset": "digits", "arch": "digits_cnn"}.
    `progress` is told the number of images done.
    """
    parameters = _parameters(classifier, n0, n, alpha, device) | dict(facts or {})
    path = Path(path)
    path = path.with_name(f"{path.name}-{_digest([parameters, list(ids)])}.tsv")
    with Record(path, parameters, ids) as record:
        for group in _groups(ids, classifier.batch_size, n0):
            if group[-1] in record.todo:
                todo = set(record.todo)
                rows = _certify_group(classifier, dataset, group, n0, n, alpha, device)
                record.append(row for row in rows if row.idx in todo)
            if progress:
                progress(len(record.done))
        record.finish(describe(str(device)))
    return read_log(path)


def recount(log: pd.DataFrame, *, n: int | None = None, alpha: float | None = None) -> pd.DataFrame:
    """The log that the same votes give at another alpha, or, projected, at another n.

    Another alpha is exact: the record keeps the counts. Another n is what the paper draws in its Figure 8 (its appendix
    J.2 says so): n_a is scaled to n_a * n / n_old as if the observed share were the true one, and nothing is sampled.
    """
    n_new = log["n"] if n is None else n
    n_a = np.floor(log["n_a"] * (n_new / log["n"])) if n is not None else log["n_a"]
    radius = radius_from_counts(n_a, n_new, log["sigma"], log["alpha"] if alpha is None else alpha)
    predict = log["selected"].where(radius > 0, ABSTAIN)
    return log.assign(predict=predict, radius=radius, correct=predict == log["label"], n=n_new, n_a=n_a)


def _groups(ids: Sequence[int], batch_size: int, n0: int) -> list[Sequence[int]]:
    """Images certified together: enough that the n0 samples of a group fill a batch.

    Groups start at fixed places, also after a crash: a batch then holds the same samples again, and floating point,
    which may depend on a batch's shape, gives the same votes.
    """
    size = max(1, -(-batch_size // n0))
    return [ids[first : first + size] for first in range(0, len(ids), size)]


def _certify_group(
    classifier: SmoothedClassifier,
    dataset: Dataset,
    ids: Sequence[int],
    n0: int,
    n: int,
    alpha: float,
    device: torch.device | str,
) -> list[Row]:
    started = time.perf_counter()
    images, labels = stack(dataset, ids)
    result = classifier.certify(images.to(device), ids, n0, n, alpha)
    seconds = (time.perf_counter() - started) / len(ids)
    common = {"time": seconds, "n0": n0, "n": n, "sigma": classifier.sigma, "alpha": alpha, "seed": classifier.seed}
    return [_row(result, i, idx=idx, label=int(labels[i]), **common) for i, idx in enumerate(ids)]


def _row(result: Certificates, i: int, **common: object) -> Row:
    return Row(
        predict=int(result.predict[i]), radius=float(result.radius[i]), selected=int(result.selected[i]),
        n_a=int(result.n_a[i]), n_b=int(result.n_b[i]), **common,
    )  # fmt: skip


def stack(dataset: Dataset, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images `ids` of a data set as one batch: (N, C, H, W) float, (N,) int64."""
    if isinstance(dataset, TensorDataset):
        return dataset[list(ids)]
    images, labels = zip(*(dataset[i] for i in ids), strict=True)
    return torch.stack(images), torch.tensor(labels)


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over what a model prints as, and the names, shapes and bytes of all its parameters and buffers."""
    digest = hashlib.sha256(repr(model).encode())
    for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().float().numpy()))
    return digest.hexdigest()


def _parameters(
    classifier: SmoothedClassifier, n0: int, n: int, alpha: float, device: torch.device | str
) -> dict[str, object]:
    return {
        "weights": weights_hash(classifier.base),
        "sigma": classifier.sigma,
        "n0": n0,
        "n": n,
        "alpha": alpha,
        "seed": classifier.seed,
        "noise": f"{NOISE_SCHEME} on {torch.device(device).type}",
        "batch_size": classifier.batch_size,
    }


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
