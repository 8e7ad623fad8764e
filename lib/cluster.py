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
starts a worker for each GPU, `MALLOC_ARENA_MAX=1 OMP_NUM_THREADS=1 dask worker ADDRESS --nthreads 1 --no-nanny` one
on a CPU; without a nanny, which would have malloc return memory at once (see lib.machine.memory).
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
from torch.utils.data import Dataset, Subset

from lib.bounds import Certificate
from lib.certification import Local, certify_group, settled_probe
from lib.datasets import ImageKey, file_keys, stack
from lib.machine.memory import MALLOC
from lib.machine.provenance import describe
from lib.records import Row
from lib.records.probe import Probe
from lib.smoothing import SmoothedClassifier

try:
    import dask
    from distributed import Client, Future, LocalCluster
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f'{error}; a cluster needs: pip install -e ".[cluster]"') from None

# By default Dask has malloc return memory at once: a ResNet-20 on a CPU then takes 2.3 times as long. And tasks run
# in a thread of their own, whose memory glibc keeps in pieces of 64 MB and returns whatever MALLOC says, unless all
# threads have one arena: 150,000 page faults for 32 images, a tenth of the time.
KEEP_MEMORY = MALLOC | {"MALLOC_ARENA_MAX": "1"}
LOCAL = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in KEEP_MEMORY.items()}
LOCAL |= {"distributed.worker.profile.enabled": False}  # its look at the stack every 10 ms takes a twentieth


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
            dask.config.set(LOCAL),
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
    (Workers of another kind of processor may round logits otherwise, as a local run there would.) The model travels
    once to each worker, which moves it to its own `device`. So does the list of a folder's files, where every worker
    finds the first of them under its path, on this machine or a shared disk: it reads its images itself. Other images
    are read here and travel with their chunk. ValueError for a worker that meets another file than there is here.
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
        model, files, waiting = None, None, deque()
        for group in groups:
            if model is None:
                model = self._model(classifier)
                files = self._submit(copy.copy, dataset) if self._find_files_of(dataset, group) else None
            if files is None:
                task = (_certify_chunk, model, _chunk(dataset, group))
            else:
                task = (_certify_files, model, files, file_keys(dataset, group))
            waiting.append(self._submit(*task, certificate, device))
            if len(waiting) >= max(16, 2 * sum(self.client.nthreads().values())):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _find_files_of(self, dataset: Dataset, group: Sequence[int]) -> bool:
        if file_keys(dataset, group[:1]) is None:
            return False
        while isinstance(dataset, Subset):
            dataset = dataset.dataset
        path = dataset.samples[0][0]  # type: ignore[attr-defined]
        return set(self.client.run(_file, path).values()) == {_file(path)}

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


def _certify_files(
    classifier: SmoothedClassifier, dataset: Dataset, keys: dict[int, ImageKey], certificate: Certificate, device: str
) -> list[Row]:
    here = file_keys(dataset, keys) or {}
    # A copy of the files may have other pixels, so they must be the very files that the record is told of.
    other = [
        i for i, key in keys.items() if here[i].digest != key.digest or here[i].stamp != (key.stamp or here[i].stamp)
    ]
    if other:
        raise ValueError(f"a worker has other files for images {other[:5]} than the client; let none change, and go on")
    classifier.base.to(device)
    return certify_group(classifier, dataset, list(keys), certificate, device)


def _file(path: str) -> tuple[int, int, int, int] | None:
    try:
        file = os.stat(path)
    except OSError:
        return None
    return file.st_size, file.st_mtime_ns, file.st_ctime_ns, file.st_ino


def _probe_on(classifier: SmoothedClassifier, images: Tensor, ids: Sequence[int], device: str) -> Probe:
    classifier.base.to(device)
    return settled_probe(classifier, images.to(device), ids)


def _on_cpu(classifier: SmoothedClassifier) -> SmoothedClassifier:
    """A copy that a machine without this one's devices can open."""
    classifier = copy.copy(classifier)
    classifier.base = copy.deepcopy(classifier.base).cpu()
    return classifier
