"""Query-only classifiers against a local service over real HTTP: what is sent, paid and kept, whatever happens."""

import base64
import datetime
import email.utils
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.apis import (
    PRICES,
    SERVICES,
    AWSRekognition,
    Budget,
    BudgetSpent,
    HuggingFace,
    MissingAnswers,
    QueryLog,
    Refused,
    RemoteClassifier,
    Retryable,
    VersionChanged,
    replay,
    transport,
)
from lib.apis.png import decoded, encoded
from lib.apis.serve import LocalService, of_module
from lib.bounds import AtRadii
from lib.certification import certify_dataset
from lib.datasets import load_dataset
from lib.models import build_classifier
from lib.sampling import class_counts
from lib.smoothing import SmoothedClassifier

DIGITS = load_dataset("digits")
CLASSES = tuple(map(str, range(10)))
IMAGES = torch.stack([DIGITS.test[i][0] for i in range(3)])
KEYS = {"GOOGLE_API_KEY": "sentinel-google", "CLARIFAI_PAT": "sentinel-clarifai", "VISION_KEY": "sentinel-azure",
        "AWS_ACCESS_KEY_ID": "sentinel-access", "AWS_SECRET_ACCESS_KEY": "sentinel-secret",
        "HF_TOKEN": "sentinel-hf"}  # fmt: skip
FAULTS = ("429", "500", "503", "malformed", "drop")


@pytest.fixture(autouse=True)
def keys_and_no_waiting(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(transport, "_jitter", lambda state: 0.0)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_classifier("digits_cnn", DIGITS).eval().requires_grad_(False)


@pytest.fixture
def service():
    with LocalService(of_module(network(), (8, 8), 1), CLASSES) as running:
        yield running


def remote(service, path, kind="huggingface", queries=10_000, **more):
    budget = None if queries is None else Budget(queries)
    return RemoteClassifier(SERVICES[kind](service.address), CLASSES, log=path / "log.jsonl", budget=budget, **more)


def smoothed(f, **more):
    return SmoothedClassifier(f, 0.1, f.num_classes, batch_size=20, **more)


def lines(path):
    return [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]


# ---- what is sent ----------------------------------------------------------------------------------------------

WIRE = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "wire").glob("*.json")}


@pytest.mark.parametrize("name", WIRE)
def test_a_request_is_that_of_the_services_own_sdk(name, monkeypatch):
    recorded, png = WIRE[name], base64.b64decode(WIRE[name]["png"])
    for variable in ("VISION_KEY", "GOOGLE_API_KEY"):
        monkeypatch.setenv(variable, "KEYEXAMPLE")
    url, headers, body = SERVICES[name]("http://127.0.0.1:8799").request([png] * (2 if name == "google" else 1))
    assert url.removeprefix("http://127.0.0.1:8799").split("?%24alt")[0] in (recorded["path"].split("?%24alt")[0], "")
    mine = {key.lower(): value for key, value in headers.items()}
    same = set(recorded["headers"]) - {"x-amz-date", "authorization", "host"}
    assert {key: mine[key] for key in same} == {key: recorded["headers"][key] for key in same}
    theirs = base64.b64decode(recorded["body"])
    if name == "google":  # the SDK writes the feature's number in place of its name
        said = json.loads(theirs)
        for row in said["requests"]:
            row["features"] = [one | {"type": {4: "LABEL_DETECTION"}[one["type"]]} for one in row["features"]]
        assert json.loads(body) == said
    else:
        assert body == theirs


def test_the_signature_is_that_of_boto3(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRETEXAMPLE")
    recorded = WIRE["aws"]
    now = datetime.datetime.strptime(recorded["headers"]["x-amz-date"], "%Y%m%dT%H%M%SZ")
    service = AWSRekognition("http://127.0.0.1:8799", now=now)
    _, headers, _ = service.request([base64.b64decode(recorded["png"])])
    assert headers["Authorization"] == recorded["headers"]["authorization"]


@pytest.mark.parametrize("side", [1, 8, 9, 50, 80])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_sent_is_the_image_in_8_bits_enlarged_by_a_whole_factor(side, channels):
    images = torch.rand(2, channels, 8, 12, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    for image, png in zip(images, encoded(images, side)):
        pixels = decoded(png)
        factor = pixels.shape[0] // 8
        assert pixels.shape == (8 * factor, 12 * factor, 3) and 8 * factor >= side > 8 * (factor - 1)
        expected = (image.clamp(0, 1) * 255).round().byte().expand(3, -1, -1).permute(1, 2, 0).numpy()
        assert (pixels[::factor, ::factor] == expected).all()
        assert (pixels == np.repeat(np.repeat(pixels[::factor, ::factor], factor, 0), factor, 1)).all()


def test_bytes_that_are_no_image_are_refused():
    with pytest.raises(ValueError, match="these 5 bytes are no image"):
        decoded(b"hello")


# ---- an f like any other ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SERVICES)
def test_every_service_has_the_votes_of_the_network_behind_it(kind, service, tmp_path):
    f, net = remote(service, tmp_path, kind), network()
    votes = smoothed(f).sample(IMAGES, range(3), 30)

    def direct(images):  # the network on what is sent
        sent = torch.stack([torch.from_numpy(decoded(png).copy()) for png in encoded(images, 1)])
        return net(sent[..., :1].permute(0, 3, 1, 2).float() / 255)

    expected = class_counts(direct, IMAGES, range(3), 30, sigma=0.1, num_classes=10, batch_size=20)
    assert (votes[:, :10] == expected.numpy()).all() and (votes[:, 10] == 0).all()
    assert f.budget.spent == len(lines(tmp_path)) == 90


def test_the_likeliest_label_is_the_answer_ties_go_by_name_and_others_are_a_class(tmp_path):
    scores = [[0.4, 0.4, 0.2], [0.1, 0.2, 0.7]]
    with LocalService(
        lambda images: [scores[int(image[0, 0, 0] > 128)] for image in images], ["b", "A", "z"]
    ) as running:
        f = RemoteClassifier(HuggingFace(running.address), ("a", "B"), log=tmp_path / "log.jsonl", budget=Budget(9))
        answers = f(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)).argmax(1).tolist()
    assert answers == [0, 2] and f.num_classes == 3


def test_a_record_takes_it_and_belongs_to_service_model_and_classes(service, tmp_path):
    f = remote(service, tmp_path)
    log = certify_dataset(smoothed(f), DIGITS.test, range(3), tmp_path / "record", n0=5, n=20, alpha=0.1)
    assert len(log) == 3
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert remote(service, fresh).identity() == f.identity(), "also before the first answer"
    others = [
        remote(service, tmp_path, side=16), remote(service, tmp_path, version="1"),
        RemoteClassifier(f.service, CLASSES[:9], log=tmp_path / "log.jsonl"),
        RemoteClassifier(HuggingFace(service.address, "m"), CLASSES, log=tmp_path / "log.jsonl"),
    ]  # fmt: skip
    assert all(other.identity() != f.identity() for other in others)


@pytest.mark.parametrize("classes", [(), ("a", "A")])
def test_classes_are_distinct_labels(classes, tmp_path):
    with pytest.raises(ValueError, match="classes must be at least one label, each once"):
        RemoteClassifier(HuggingFace("http://127.0.0.1:1"), classes, log=tmp_path / "log.jsonl")


# ---- money -----------------------------------------------------------------------------------------------------


def test_without_a_budget_nothing_is_sent(service, tmp_path):
    with pytest.raises(MissingAnswers, match="the log lacks 3 of the answers"):
        remote(service, tmp_path, queries=None)(IMAGES)
    assert service.requests == 0


def test_the_price_is_said_before_the_first_query_and_once(service, tmp_path):
    said = []
    f = remote(service, tmp_path, "google", 600, say=said.append)
    f(IMAGES), f(IMAGES / 2)
    assert said == ["google: up to 600 queries, at most $0.90"] and PRICES["google"].dollars == 1.5


def test_the_cap_is_hard_nothing_is_lost_and_a_larger_budget_goes_on(service, tmp_path):
    f = remote(service, tmp_path, queries=25)
    with pytest.raises(BudgetSpent, match="the budget of 25 queries allows 0 more"):
        smoothed(f).sample(IMAGES, range(3), 20)
    assert service.requests == f.budget.spent == len(lines(tmp_path)) == 25
    votes = smoothed(remote(service, tmp_path)).sample(IMAGES, range(3), 20)
    assert service.requests == 60 and votes.sum() == 60


def test_an_image_is_asked_once_whatever_it_is_called_for(service, tmp_path):
    f = remote(service, tmp_path)
    f(IMAGES), f(IMAGES.flip(0)), remote(service, tmp_path)(torch.cat([IMAGES, IMAGES]))
    assert service.requests == 3


@pytest.mark.parametrize("queries", [-1, 1.5, "many", None])
def test_a_budget_is_a_whole_number(queries):
    with pytest.raises(ValueError, match="queries must be"):
        Budget(queries)


# ---- faults ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SERVICES)
@pytest.mark.parametrize("fault", FAULTS)
def test_trouble_that_passes_is_waited_out_and_each_attempt_is_counted(kind, fault, service, tmp_path):
    service.faults = {fault: 2}
    f = remote(service, tmp_path, kind)
    assert f(IMAGES[:1]).sum() == 1
    assert service.requests == f.budget.spent == 3 and lines(tmp_path)[0]["attempts"] == 3


@pytest.mark.parametrize("fault", FAULTS)
def test_trouble_that_stays_ends_after_five_attempts(fault, service, tmp_path):
    service.faults = {fault: 100}
    with pytest.raises(Retryable, match="huggingface: "):
        remote(service, tmp_path)(IMAGES[:1])
    assert service.requests == 5


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(None, None), ("7", 7.0), ("-3", 0.0), ("soon", None), (email.utils.formatdate(time.time() + 3600), 3600.0)],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(said, seconds):
    found = transport._after(said)
    assert found == seconds if seconds is None else found == pytest.approx(seconds, abs=600)


def test_the_service_is_given_the_time_it_asks_for(service, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(transport.tenacity.nap.time, "sleep", waited.append)
    service.faults, service.retry_after = {"429": 1}, "7"
    remote(service, tmp_path)(IMAGES[:1])
    assert 7.0 in waited


@pytest.mark.parametrize("kind", SERVICES)
def test_what_will_not_pass_stops_at_once_with_the_services_words_and_without_the_key(kind, service, tmp_path):
    service.key = "another"
    with pytest.raises(Refused, match=r"HTTP 401.*wrong key") as error:
        remote(service, tmp_path, kind)(IMAGES[:1])
    assert service.requests == 1 and "sentinel" not in str(error.value)


def test_an_image_that_is_too_small_is_refused_and_aws_and_azure_enlarge_it(service, tmp_path):
    service.least = 50
    with pytest.raises(Refused, match="image of 8 x 8 pixels, at least 50 are needed"):
        remote(service, tmp_path)(IMAGES[:1])
    for kind in ("aws", "azure"):
        assert remote(service, tmp_path, kind)(IMAGES[:1]).sum() == 1


@pytest.mark.parametrize("kind", SERVICES)
def test_a_key_is_nowhere_to_be_found(kind, service, tmp_path):
    f = remote(service, tmp_path, kind)
    f(IMAGES)
    told = [repr(f), repr(f.service), str(vars(f.service)), str(f.identity()), (tmp_path / "log.jsonl").read_text()]
    assert [text for text in told if "sentinel" in text] == []


@pytest.mark.parametrize("kind", [kind for kind in SERVICES.values() if kind.environment])
def test_a_missing_key_is_named_before_anything_is_sent(kind, service, tmp_path, monkeypatch):
    monkeypatch.delenv(kind.environment[-1])
    with pytest.raises(ValueError, match=f"needs a key in the environment variable {kind.environment[-1]}"):
        remote(service, tmp_path, kind.kind)(IMAGES[:1])
    assert service.requests == 0


@pytest.mark.parametrize("kind", ["aws", "azure", "clarifai", "openinference"])
def test_a_new_version_of_the_model_stops_the_run(kind, service, tmp_path):
    f = remote(service, tmp_path, kind)
    f(IMAGES[:1])
    service.version = "2"
    with pytest.raises(VersionChanged, match=r"now answers by version '2', the log .* holds answers of '1'"):
        f(IMAGES[1:])


def test_a_version_that_was_asked_for_is_held_to(service, tmp_path):
    with pytest.raises(VersionChanged, match="aws answers by version '1', asked for was '3'"):
        remote(service, tmp_path, "aws", version="3")(IMAGES[:1])


def test_a_service_that_is_gone_may_come_back(service, tmp_path):
    f = remote(service, tmp_path)
    f(IMAGES[:1])
    with LocalService(of_module(network(), (8, 8), 1), CLASSES) as other:
        gone = other.address
    f.service = HuggingFace(gone)
    with pytest.raises(Retryable, match="ConnectError"):
        f(IMAGES)
    with LocalService(of_module(network(), (8, 8), 1), CLASSES, int(gone.rsplit(":")[-1])):
        assert f(IMAGES).sum() == 3


# ---- the log ---------------------------------------------------------------------------------------------------


def test_half_a_last_line_is_dropped_and_cut_off(service, tmp_path):
    path = tmp_path / "log.jsonl"
    remote(service, tmp_path)(IMAGES)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert len(QueryLog(path).answers) == 2
    remote(service, tmp_path)(IMAGES)
    assert path.read_bytes() == whole and service.requests == 4


def test_a_damaged_line_in_the_middle_is_named(service, tmp_path):
    path = tmp_path / "log.jsonl"
    remote(service, tmp_path)(IMAGES)
    path.write_text(path.read_text().replace('"labels"', "labels", 1))
    with pytest.raises(ValueError, match=r"log.jsonl: line 1 .* is damaged"):
        QueryLog(path)


def test_a_full_disk_leaves_the_log_as_it_was(service, tmp_path, monkeypatch):
    f = remote(service, tmp_path)
    f(IMAGES[:1])
    before = (tmp_path / "log.jsonl").read_bytes()

    def full(file, text, write=os.write):
        write(file, bytes(text)[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        f(IMAGES)
    monkeypatch.undo()
    assert (tmp_path / "log.jsonl").read_bytes() == before
    assert len(QueryLog(tmp_path / "log.jsonl").answers) == 1


WORK = """
import sys, torch
sys.path[:0] = [{tests!r}]
from pathlib import Path
from test_apis import *
class At: address = {address!r}
votes = smoothed(remote(At, Path({folder!r}))).sample(IMAGES, range(3), {n})
print(votes.tolist())
"""


def start(service, folder, n):
    code = WORK.format(tests=str(Path(__file__).parent), address=service.address, folder=str(folder), n=n)
    root = str(Path(__file__).parents[1])
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env, cwd=root)


def test_a_kill_loses_no_answer_and_the_run_goes_on_to_the_same_votes(service, tmp_path):
    service.slow = 0.02
    killed = start(service, tmp_path, 100)
    while service.requests < 60 and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    service.slow, before = 0.0, service.requests
    kept = len(QueryLog(tmp_path / "log.jsonl").answers)
    assert 0 < kept <= before and before - kept <= 20  # a batch may have been under way
    votes = smoothed(remote(service, tmp_path)).sample(IMAGES, range(3), 100)
    assert service.requests == before + 300 - kept
    (tmp_path / "fresh").mkdir()
    assert (votes == smoothed(remote(service, tmp_path / "fresh")).sample(IMAGES, range(3), 100)).all()


def test_two_processes_with_one_log_pay_each_query_once(service, tmp_path):
    service.slow = 0.005
    both = [start(service, tmp_path, 40) for _ in range(2)]
    first, second = (process.communicate()[0] for process in both)
    assert first == second and service.requests == 120 == len(lines(tmp_path))


# ---- replay ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "certificate",
    [{"n": 30, "alpha": 0.05}, {"n": 50, "alpha": 0.001, "two_class": True}, {"n": 10, "alpha": 0.2},
     {"n": 50, "alpha": 0.05, "rule": AtRadii(radii=(0.05,))}],
    ids=["fewer samples", "another bound", "another level", "a stopping rule"],
)  # fmt: skip
def test_a_replay_gives_the_certificate_of_the_same_answers_without_a_query(certificate, service, tmp_path):
    g = smoothed(remote(service, tmp_path))
    g.certify(IMAGES, range(3), n0=10, n=50, alpha=0.05)
    asked = service.requests
    again = replay(smoothed(remote(service, tmp_path, queries=None)), IMAGES, range(3), n0=10, **certificate)
    (tmp_path / "fresh").mkdir()
    assert service.requests == asked
    expected = smoothed(remote(service, tmp_path / "fresh")).certify(IMAGES, range(3), n0=10, **certificate)
    assert (again.radius == expected.radius).all() and (again.predict == expected.predict).all()


def test_a_replay_that_needs_more_says_how_many_answers_are_missing(service, tmp_path):
    g = smoothed(remote(service, tmp_path))
    g.certify(IMAGES, range(3), n0=10, n=50, alpha=0.05)
    asked = service.requests
    with pytest.raises(MissingAnswers, match="the log lacks 21 of the answers"):
        replay(g, IMAGES, range(3), n0=10, n=57, alpha=0.05)
    assert service.requests == asked


# ---- the server by its command ---------------------------------------------------------------------------------


def test_the_command_serves_a_classifier_of_the_kit_and_says_where(tmp_path):
    words = [sys.executable, "-m", "lib.apis.serve", "--fault", "500", "1", "--least", "4"]
    served = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    try:
        address = served.stdout.readline().strip()
        f = RemoteClassifier(HuggingFace(address), CLASSES, log=tmp_path / "log.jsonl", budget=Budget(9))
        assert f(IMAGES[:1])[0, :10].sum() == 1 and f.budget.spent == 2
    finally:
        served.kill()
        served.wait()
