"""Certification on worker processes: the same record as here, whoever dies on the way."""

import json
import os
import signal
import time

import pytest
import torch
from image_folders import write_folder
from processes import PATIENCE
from test_certification import DATASET, RULE
from test_records import without_time
from torch import nn
from torchvision import transforms as T
from torchvision.datasets import ImageFolder
from toys import hyperplane

from lib import certification, methods, run
from lib.certification import certify_dataset
from lib.config import Common
from lib.datasets import Data
from lib.smoothing import SmoothedClassifier

pytest.importorskip("distributed", reason="a cluster needs: pip install -e '.[cluster]'")

import dask

from lib import cluster as cluster_room
from lib.cluster import Workers, cluster

IDS = list(range(24))


class Slow(nn.Module):
    """A hyperplane that takes its time, so that there is a middle to be killed in."""

    def __init__(self) -> None:
        super().__init__()
        self.plane = hyperplane()

    def forward(self, images):
        time.sleep(0.02)
        return self.plane(images)


@pytest.fixture(scope="module")
def client():
    with cluster(workers=2) as client:
        yield client


def arguments(folder, rule=None):
    classifier = SmoothedClassifier(Slow().eval(), 0.5, 2, batch_size=100)  # 24 chunks: not all are sent at once
    return (classifier, DATASET, IDS, folder / "log"), {"n0": 100, "n": 400, "alpha": 0.001, "rule": rule}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The record of a run in this process."""
    folder = tmp_path_factory.mktemp("local")
    positional, named = arguments(folder)
    certify_dataset(*positional, **named)
    return next(folder.glob("*.tsv"))


def record(folder):
    return next(folder.glob("*.tsv"))


def test_the_record_has_the_name_and_the_bytes_of_a_local_run(client, local, tmp_path):
    positional, named = arguments(tmp_path)
    told = []
    certify_dataset(*positional, **named, where=Workers(client), progress=told.append)
    assert told == list(range(25))
    assert record(tmp_path).name == local.name and without_time(record(tmp_path)) == without_time(local)
    assert json.loads(record(tmp_path).with_suffix(".json").read_text())["environment"]["device"] == "cpu"


def test_a_stopping_rule_gives_the_record_of_a_local_run(client, tmp_path):
    positional, named = arguments(tmp_path / "here", RULE)
    certify_dataset(*positional, **named)
    certify_dataset(*arguments(tmp_path / "there", RULE)[0], **named, where=Workers(client))
    assert without_time(record(tmp_path / "there")) == without_time(record(tmp_path / "here"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_worker_killed_in_the_middle_costs_only_its_chunk(client, local, tmp_path):
    workers = client.run(os.getpid)
    killed = []

    def kill_a_busy_worker(done):
        if done >= 3 and not killed:
            address = next(address for address, tasks in client.processing().items() if tasks)
            os.kill(workers[address], signal.SIGKILL)
            killed.append(address)

    positional, named = arguments(tmp_path)
    certify_dataset(*positional, **named, where=Workers(client), progress=kill_a_busy_worker)
    assert killed and without_time(record(tmp_path)) == without_time(local)
    client.wait_for_workers(2, timeout=PATIENCE)
    assert killed[0] not in client.run(os.getpid)  # another process has taken its place


def test_a_run_whose_own_process_stops_goes_on_from_its_record(client, local, tmp_path):
    class Stopped(BaseException):
        pass

    def stop(done):
        if done >= 6:
            raise Stopped

    positional, named = arguments(tmp_path)
    with pytest.raises(Stopped):
        certify_dataset(*positional, **named, where=Workers(client), progress=stop)
    assert not list(tmp_path.glob("*.tsv"))
    told = []  # nothing is certified twice
    certify_dataset(*positional, **named, where=Workers(client), progress=told.append)
    assert told == list(range(6, 25)) and without_time(record(tmp_path)) == without_time(local)


def test_of_a_finished_record_the_cluster_is_only_asked_the_probe(client, local, monkeypatch):
    positional, named = arguments(local.parent)
    monkeypatch.setattr("lib.cluster._certify_chunk", lambda *_: pytest.fail("certified again"))
    assert certify_dataset(*positional, **named, where=Workers(client))["idx"].tolist() == IDS


@pytest.fixture
def images(tmp_path):
    write_folder(tmp_path / "images")
    return ImageFolder(tmp_path / "images" / "test", T.Compose([T.Grayscale(), T.Resize((3, 4)), T.ToTensor()]))


def of_a_folder(images, folder, **where):
    positional, named = arguments(folder)
    certify_dataset(positional[0], images, range(6), positional[3], **named, **where)
    return record(folder)


def sent(monkeypatch):
    """The ids of images that travel from now on."""
    ids, really = [], cluster_room._chunk
    monkeypatch.setattr(cluster_room, "_chunk", lambda data, group: ids.extend(group) or really(data, group))
    return ids


def test_workers_that_find_a_folders_files_read_them_themselves(client, images, tmp_path, monkeypatch):
    here, travelled = of_a_folder(images, tmp_path / "here"), sent(monkeypatch)
    there = of_a_folder(images, tmp_path / "there", where=Workers(client))
    assert travelled == [] and there.name == here.name and without_time(there) == without_time(here)


@pytest.mark.parametrize("other", [("images", "nowhere"), ("test", "train")], ids=["no files", "other files"])
def test_images_travel_to_workers_that_lack_the_files(other, client, images, tmp_path, monkeypatch):
    here, travelled = of_a_folder(images, tmp_path / "here"), sent(monkeypatch)
    elsewhere = lambda ask, path: {"a": ask(path), "b": ask(path.replace(*other))}  # noqa: E731
    monkeypatch.setattr(client, "run", elsewhere)
    there = of_a_folder(images, tmp_path / "there", where=Workers(client))
    assert travelled == list(range(6)) and without_time(there) == without_time(here)


@pytest.mark.parametrize("what", ["digest", "stamp"])
def test_a_worker_with_other_files_under_the_same_names_is_refused(what, client, images, tmp_path, monkeypatch):
    really = cluster_room.file_keys
    changed = lambda key: key._replace(**{what: "0" * 16})  # noqa: E731
    monkeypatch.setattr(
        cluster_room, "file_keys", lambda *of: {i: changed(key) for i, key in (really(*of) or {}).items()}
    )
    with pytest.raises(ValueError, match=r"a worker has other files for images \[0\] than the client"):
        of_a_folder(images, tmp_path, where=Workers(client))


def test_an_error_in_a_chunk_comes_back_and_lets_go_of_the_record(client, tmp_path):
    positional, named = arguments(tmp_path)
    positional[0].base.train()
    with pytest.raises(ValueError, match="base is in training mode"):
        certify_dataset(*positional, **named, where=Workers(client))
    positional[0].base.eval()
    certify_dataset(*positional, **named, where=Workers(client))


def test_notebooks_certify_on_the_cluster_that_the_environment_names(client, tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_SCHEDULER", client.scheduler.address)
    monkeypatch.setattr(certification, "certify_group", lambda *_, **how: pytest.fail("certified here"))
    data = Data("halves", DATASET, DATASET, 2, ("0", "1"), (1, 3, 4), (0.5,), (0.5,))
    cfg = Common(run_dir=str(tmp_path), n=400, batch_size=300)
    assert len(methods.certified(cfg, data, hyperplane(), 0.5, "log", IDS)) == 24


def test_a_run_says_where_the_dashboard_is(client, capsys, monkeypatch):
    monkeypatch.setenv("KIT_SCHEDULER", "")
    run.join(client.scheduler.address)
    assert capsys.readouterr().out == f"dashboard: {client.dashboard_link}\n"
    assert os.environ["KIT_SCHEDULER"] == client.scheduler.address


def test_a_run_is_not_started_where_no_scheduler_answers(capsys, monkeypatch):
    monkeypatch.setenv("KIT_SCHEDULER", "")
    monkeypatch.setattr(run, "run", lambda *_: pytest.fail("started"))
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        assert run.main(["01_randomized_smoothing", "--scheduler", "tcp://127.0.0.1:1"]) == 2
    assert "tcp://127.0.0.1:1" in capsys.readouterr().err and not os.environ["KIT_SCHEDULER"]


def test_every_worker_here_computes_with_one_thread_and_keeps_its_memory(client):
    assert set(client.run(torch.get_num_threads).values()) == {1}
    for name, value in cluster_room.KEEP_MEMORY.items():
        assert set(client.run(os.environ.get, name).values()) == {value}


def test_the_environment_is_left_as_it_was():
    before = dict(os.environ)
    with cluster(workers=1):
        pass
    assert dict(os.environ) == before
