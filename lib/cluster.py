"""Certification on many machines: chunks of images as tasks of a Dask cluster, one record at the end.

    with cluster("tcp://10.0.0.1:8786") as client:      # cluster() alone starts two workers on this machine
        print(client.dashboard_link)
        log = certify_dataset(..., where=Workers(client))   # of lib.certification

Notebooks do it where $KIT_SCHEDULER names a scheduler, which `python -m lib.run ... --scheduler ADDRESS` sets. With
dask-jobqueue on a Slurm cluster, one GPU a worker:

    from dask_jobqueue import SLURMCluster
    jobs = SLURMCluster(cores=1, processes=1, memory="32GB", walltime="08:00:00", job_extra_directives=["--gres=gpu:1"])
    jobs.scale(16)                                      # jobs.scheduler_address is the ADDRESS

By hand: `dask scheduler` on one machine; on others, in this project's folder, `dask cuda worker ADDRESS` (dask-cuda)
starts a worker for each GPU, `OMP_NUM_THREADS=1 dask worker ADDRESS --nthreads 1 --no-nanny` one on a CPU; without a
nanny, so that it keeps what the environment says of malloc (MALLOC in lib.machine.provenance).
One thread a worker: torch's switches for precision are those of a whole process.
Workers keep the code that they have imported: start them again after a change of lib.
Needs what `pip install -e ".[cluster]"` installs.
"""

import copy
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor
from torch.utils.data import Dataset

from lib.bounds import Certificate
from lib.certification import Local, certify_group, settled_probe
from lib.datasets import stack
from lib.machine.provenance import MALLOC, describe
from lib.records import Row
from lib.records.probe import Probe
from lib.smoothing import SmoothedClassifier

try:
    import dask
    from distributed import Client, Future, LocalCluster
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f'{error}; a cluster needs: pip install -e ".[cluster]"') from None

# By default Dask has malloc return memory at once: a ResNet-20 on a CPU then takes 2.3 times as long.
KEEP_MEMORY = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in MALLOC.items()}


@contextmanager
def cluster(address: str | None = None, workers: int = 2) -> Iterator[Client]:
    """A client of the scheduler at `address`; without one, of `workers` processes here with one torch thread each.

    Processes that were started here end with the block, those of an `address` do not. OSError where nobody answers.
    """
    if address:
        with Client(address) as client:
            yield client
        return
    # Any free port for the dashboard, and no limit of memory: by default Dask kills a worker that holds a large model.
    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0", "memory_limit": 0}
    before = dict(os.environ)
    try:
        with (
            dask.config.set(KEEP_MEMORY),
            LocalCluster(n_workers=workers, **options) as local,
            Client(local) as client,
        ):
            yield client
    finally:  # Dask leaves OMP_NUM_THREADS=1, which is meant for the workers, to whatever is started here afterwards
        os.environ.clear()
        os.environ.update(before)


class Workers(Local):
    """The workers of `client`, for `certify_dataset(..., where=Workers(client))`: the same record, times aside.

    A chunk is what `certify_dataset` takes together, so every batch has the same composition wherever it is computed.
    (Workers of another kind of processor may round logits otherwise, as a local run there would.) Images are read here
    and travel with their chunk, the model travels once to each worker, which moves it to its own `device`.
    This process alone writes, in the order of the ids. A chunk on a worker that dies is computed again on another;
    after the fourth death Dask gives it up with KilledWorker. Where this process dies, the next call takes up its
    record.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    def probe(self, classifier: SmoothedClassifier, images: Tensor, ids: Sequence[int], device: str) -> Probe:
        """f's answers to the probe, on a worker: this machine may lack their device."""
        return self._submit(_probe_on, self._model(classifier), images, list(ids), device).result()

    def rows(
        self,
        classifier: SmoothedClassifier,
        dataset: Dataset,
        groups: Iterable[Sequence[int]],
        certificate: Certificate,
        device: str,
    ) -> Iterator[list[Row]]:
        """In order. As many chunks are on their way as keep all workers busy; not more: images are large."""
        model, waiting = None, deque()
        for group in groups:
            model = model or self._model(classifier)
            waiting.append(self._submit(_certify_chunk, model, _chunk(dataset, group), certificate, device))
            if len(waiting) >= max(16, 2 * sum(self.client.nthreads().values())):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def describe(self, device: str) -> dict:
        """As one of the workers sees it."""
        return self._submit(describe, device).result()

    def _model(self, classifier: SmoothedClassifier) -> Future:
        return self._submit(copy.copy, _on_cpu(classifier))

    def _submit(self, function: Callable, *arguments: object) -> Future:
        # A model is an argument of a task, not scattered: what a dead worker held is then made again, not lost.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TiB"}):
            return self.client.submit(function, *arguments, pure=False)


Chunk = dict[int, tuple[Tensor, int]]  # image id -> image (C, H, W) and label


def _chunk(dataset: Dataset, ids: Sequence[int]) -> Chunk:
    images, labels = stack(dataset, ids)
    return {i: (image.clone(), label) for i, image, label in zip(ids, images, labels.tolist(), strict=True)}


def _certify_chunk(classifier: SmoothedClassifier, chunk: Chunk, certificate: Certificate, device: str) -> list[Row]:
    classifier.base.to(device)  # in place: the worker's copy stays there for the chunks to come
    return certify_group(classifier, chunk, list(chunk), certificate, device)


def _probe_on(classifier: SmoothedClassifier, images: Tensor, ids: Sequence[int], device: str) -> Probe:
    classifier.base.to(device)
    return settled_probe(classifier, images.to(device), ids)


def _on_cpu(classifier: SmoothedClassifier) -> SmoothedClassifier:
    """A copy that a machine without this one's devices can open."""
    classifier = copy.copy(classifier)
    classifier.base = copy.deepcopy(classifier.base).cpu()
    return classifier
