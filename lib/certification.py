"""Certify a data set into a record: the loop that users wait for, killed and resumed at will."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from lib.bounds import Certificate, StoppingRule
from lib.bounds.certificate import BOUNDS
from lib.datasets import Data, image_digests, image_keys, stack
from lib.machine.provenance import describe
from lib.models.identity import identity
from lib.records import Record, Row, read_log
from lib.records.probe import OWN, Probe, probe
from lib.records.record import rows_elsewhere
from lib.sampling.counts import image_ids
from lib.sampling.noise import NOISES
from lib.smoothing import SmoothedClassifier, certificate_of


class Local:
    """Where certification takes place: in this process. `lib.cluster.Workers` is the other place."""

    def probe(self, classifier: SmoothedClassifier, images: Tensor, ids: Sequence[int], device: str) -> Probe:
        """f's answers to the probe, on the device that will certify."""
        return settled_probe(classifier, images.to(device), ids)

    def rows(
        self,
        classifier: SmoothedClassifier,
        dataset: Dataset,
        groups: Iterable[Sequence[int]],
        certificate: Certificate,
        device: str,
    ) -> Iterator[list[Row]]:
        """The rows of each group, in order."""
        return (certify_group(classifier, dataset, group, certificate, device) for group in groups)

    def describe(self, device: str) -> dict:
        """The versions and the device that the rows were made with."""
        return describe(device)


def certify_dataset(
    classifier: SmoothedClassifier,
    dataset: Dataset,
    ids: Iterable[int],
    path: str | Path,
    *,
    n0: int | None = None,
    n: int | None = None,
    alpha: float | None = None,
    rule: StoppingRule | None = None,
    two_class: bool = False,
    certificate: Certificate | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
    facts: Mapping[str, object] | None = None,
    where: Local | None = None,
) -> pd.DataFrame:
    """CERTIFY images `ids` of `dataset` and return their log; what an earlier process has done is read, not done again.

    The record is <path>-<hash>.tsv. It belongs to f as a function (class, weights, attributes; `lib.models.identity`),
    to the pixels and labels of the ids, to noise, seed and certificate: another of these is another hash and another
    file, so nothing is overwritten and nothing stale is read. A folder of images, whose pixels take long to read, has
    the names, sizes and labels of its files in the hash, and a row the hash of the pixels that were certified: a row is
    taken up where the file's times and inode are as they were (`lib.records.seen`), else its pixels are read and
    compared, and others are refused. Before anything is sampled, f answers a probe, which must
    agree with that of a record on the disk (`lib.records.probe`).
    Where more ids are asked for than a record of the same run holds, its rows are taken up. Not so with n: with a fixed
    n, more samples after a look at the votes would spend alpha a second time. Choose n before, or a `rule`: its bound
    holds at every n at once.
    `n0`, `n`, `alpha`, `rule`, `two_class` or, in one object, `certificate`: see `SmoothedClassifier.certify`.
    `facts`: more of what should be in the manifest, such as {"dataset": "digits", "arch": "digits_cnn"}.
    `progress` is told the number of images done. `where`: `lib.cluster.Workers(client)` for a cluster, else here.
    ValueError for a base that no record can tell from another, or that is no fixed function; for labels outside
    0 ... num_classes - 1; for anything that `SmoothedClassifier` refuses.
    """
    how, place, device = certificate_of(certificate, n0, n, alpha, rule, two_class), where or Local(), str(device)
    _check_names(classifier, how)
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"path must name a file, such as 'runs/mine'; got {path!r:.80}")
    _check_dataset(dataset)
    listed = list(ids) if isinstance(ids, Iterable) else ids
    listed = image_ids(listed, len(listed) if isinstance(listed, list) else 1)
    if not listed:
        raise ValueError("ids must name at least one image; got none")
    images = image_keys(dataset, listed, classifier.num_classes)
    read = lambda ids: image_digests(dataset, ids)  # noqa: E731
    probed = lambda ids: place.probe(classifier, stack(dataset, ids)[0], ids, device)  # noqa: E731
    answers = probed(listed[:OWN])
    parameters = _with_facts(_parameters(classifier, how, device), facts or {})
    digest = _digest([parameters, [(i, key[:2]) for i, key in images.items()]])
    path = Path(path).with_name(f"{Path(path).name}-{digest}.tsv")
    report = progress or (lambda done: None)
    with Record(path, parameters, images, answers, read) as record:
        todo = set(record.todo)
        # groups with an image that the record lacks; the first of them may have others that it holds already
        groups = [group for group in _groups(listed, classifier.batch_size, how) if group[-1] in todo]
        wanted = {i: images[i] for group in groups for i in group}
        known = rows_elsewhere(path, parameters, wanted, probed, read) if groups else {}
        unknown = [[i for i in group if i not in known] for group in groups]
        fresh = iter(place.rows(classifier, dataset, [group for group in unknown if group], how, device))
        report(len(record.done))
        for group, new in zip(groups, unknown, strict=True):
            rows = {row.idx: row for row in (next(fresh) if new else [])}
            record.append(rows.get(i) or known[i] for i in group if i in todo)
            report(len(record.done))
        if not record.complete:
            record.finish(place.describe(device) | _sizes_found(classifier))
    return read_log(record.path)


def _groups(ids: Sequence[int], batch_size: int | str, how: Certificate) -> list[Sequence[int]]:
    """Images certified together: enough that the n0 samples of a group fill a batch, one where n fills ten by itself.

    With a rule that looks at votes eight times as many, since most stop early: later rounds then fill batches too.

    Groups start at fixed places, also after a crash: a batch then holds the same samples again, and floating point,
    which may depend on a batch's shape, gives the same votes. With "auto" the places are those of a batch of 1000; the
    batches are not, so votes on a tie of f's logits, equal but for the last bit, may fall otherwise in another run.
    """
    if isinstance(batch_size, str):
        batch_size = 1000
    size = -(-batch_size // how.n0)
    if how.rule.looks_at_votes:
        size *= 8
    elif how.n >= 10 * batch_size:  # a row is written as soon as it is there: an image may take minutes
        size = 1
    return [ids[first : first + size] for first in range(0, len(ids), size)]


def certify_group(
    classifier: SmoothedClassifier, dataset: Dataset, ids: Sequence[int], certificate: Certificate, device: str
) -> list[Row]:
    """The rows of one group: the unit of work, here or on a worker of a cluster."""
    started = time.perf_counter()
    images, labels = stack(dataset, ids)
    chunk = {i: (image, label) for i, image, label in zip(ids, images, labels.tolist(), strict=True)}
    result = classifier.certify(images.to(device), ids, certificate=certificate)
    samples = certificate.n0 + result.n
    seconds = (time.perf_counter() - started) * samples / samples.sum()
    common: dict[str, Any] = {
        "n0": certificate.n0, "sigma": classifier.sigma, "alpha": certificate.alpha, "seed": classifier.seed,
        "noise": classifier.noise.name, "bound": certificate.bound.name,
    }  # fmt: skip
    columns = ("predict", "radius", "selected", "n_a", "n_b", "n")
    cells = zip(*(getattr(result, name).tolist() for name in columns), strict=True)
    each = zip(ids, labels.tolist(), image_digests(chunk, ids), seconds.tolist(), cells, strict=True)
    return [
        Row(idx=i, label=label, image=digest, time=took, **common, **dict(zip(columns, row, strict=True)))
        for i, label, digest, took, row in each
    ]


def _parameters(classifier: SmoothedClassifier, how: Certificate, device: str) -> dict[str, object]:
    noise = classifier.noise
    return how.parameters() | {
        "f": identity(classifier.base),
        "compute": getattr(classifier.base, "compute", "as torch is set"),
        "num_classes": classifier.num_classes,
        "noise": noise.name,
        "noise_drawn": f"{noise.scheme} on {torch.device(device).type}",
        "sigma": noise.sigma,
        "seed": classifier.seed,
        "batch_size": classifier.batch_size,
    }


def _sizes_found(classifier: SmoothedClassifier) -> dict[str, list[int]]:
    """For the manifest: which batches "auto" came to. Nothing where the size was given, or the workers found it out."""
    found = classifier.batch_sizes_found
    return {"batch_sizes_found": found} if found else {}


def settled_probe(classifier: SmoothedClassifier, images: Tensor, ids: Sequence[int]) -> Probe:
    """The probe of a base that stays what it is. ValueError where answering changes its weights or attributes."""
    answers, before = probe(classifier, images, ids), identity(classifier.base)
    probe(classifier, images, ids)  # a base that keeps the last batch, say, is by now what it will be after each probe
    if identity(classifier.base) != before:
        raise ValueError(
            "base changes a buffer or an attribute whenever it answers, so it is no fixed function: keep nothing of a "
            "batch in it, and update nothing in forward"
        )
    return answers


def _check_dataset(dataset: object) -> None:
    """ValueError for what has no images by number."""
    if isinstance(dataset, Data):
        raise ValueError("dataset holds training and test images: pass one of them, such as data.test")
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        advice = "pass a dataset with items (image, label) by number; of a DataLoader, its .dataset"
        raise ValueError(f"dataset has no images by number, it is a {type(dataset).__name__}: {advice}")


def _check_names(classifier: SmoothedClassifier, how: Certificate) -> None:
    """ValueError for a noise or a bound that a record could not name: its radii could not be recounted."""
    noise, bound = classifier.noise, how.bound
    if NOISES.get(noise.kind) is not type(noise):
        raise ValueError(f"noise = {noise!r} has no name of its own for a record: enter it in NOISES of lib.sampling")
    if BOUNDS.get(bound.name) != bound:
        raise ValueError(f"bound = {bound!r} has no name of its own for a record: enter it in BOUNDS of lib.bounds")


def _with_facts(parameters: dict[str, object], facts: Mapping[str, object]) -> dict[str, object]:
    twice = sorted(parameters.keys() & facts.keys())
    if twice:
        raise ValueError(f"facts = {twice[0]!r}: ... would hide what the record says of it; choose another name")
    return parameters | dict(facts)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
