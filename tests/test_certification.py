import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from torch.utils.data import TensorDataset
from toys import anytime_radius, hyperplane

from lib import certification
from lib.bounds import AtRadii, Bound, Certificate, Tolerance, certified_radius, lower_confidence_bound
from lib.certification import certify_dataset
from lib.models.compute import Computed
from lib.records import recount
from lib.sampling import Gaussian, Grid
from lib.smoothing import ABSTAIN, SmoothedClassifier

IMAGES = torch.randint(0, 256, (24, 1, 3, 4), generator=torch.Generator().manual_seed(2)) / 255
LABELS = torch.arange(24) % 2
DATASET = TensorDataset(IMAGES, LABELS)
IDS = list(range(0, 24, 2))
RULE = AtRadii(radii=(0, 0.25, 0.5))


def certify(folder, ids=IDS, base=None, dataset=DATASET, sigma=0.5, num_classes=2, seed=0, batch_size=300, **changed):
    classifier = SmoothedClassifier(base or hyperplane(), sigma, num_classes, seed=seed, batch_size=batch_size)
    how = {"n0": 100, "n": 400, "alpha": 0.001} | changed
    return certify_dataset(classifier, dataset, ids, folder / "log", **how)


def without_time(log):
    return log.drop(columns="time")


def test_the_log_says_what_certify_says(tmp_path):
    log = certify(tmp_path)
    truth = SmoothedClassifier(hyperplane(), 0.5, 2, batch_size=300).certify(IMAGES[IDS], IDS, 100, 400, 0.001)
    assert log["idx"].tolist() == IDS and (log["label"] == np.array(IDS) % 2).all()
    assert (log["predict"] == truth.predict).all() and (log["n_a"] == truth.n_a).all()
    assert (log["radius"] <= truth.radius).all() and np.allclose(log["radius"], truth.radius, atol=1e-6)


def test_a_finished_record_is_read_and_not_made_again(tmp_path, monkeypatch):
    first = certify(tmp_path)
    monkeypatch.setattr(SmoothedClassifier, "certify", lambda *_: pytest.fail("certified again"))
    pd.testing.assert_frame_equal(certify(tmp_path), first)


def test_auto_is_what_the_record_is_named_after_and_its_manifest_says_what_it_came_to(tmp_path):
    log = certify(tmp_path, batch_size="auto")
    manifest = json.loads(next(tmp_path.glob("log-*.json")).read_text())
    assert manifest["parameters"]["batch_size"] == "auto"
    assert all(size >= 1 for size in manifest["environment"]["batch_sizes_found"])
    assert len(manifest["environment"]["batch_sizes_found"]) == 1
    pd.testing.assert_frame_equal(without_time(log), without_time(certify(tmp_path)))
    certify(tmp_path, batch_size="auto")
    assert len(list(tmp_path.glob("log-*.tsv"))) == 2


# For every parameter of a record, how a user would change it.
CHANGES = {
    "f": {"base": hyperplane(1)}, "compute": {"base": Computed(hyperplane())}, "num_classes": {"num_classes": 3},
    "noise": {"sigma": Grid(0.5, 255)}, "noise_drawn": {"sigma": Grid(0.5, 255)}, "sigma": {"sigma": 0.25},
    "seed": {"seed": 1},
    "batch_size": {"batch_size": 299}, "n0": {"n0": 99}, "n": {"n": 500}, "alpha": {"alpha": 0.002},
    "rule": {"rule": RULE}, "bound": {"two_class": True}, "dataset": {"facts": {"dataset": "toy"}},
}  # fmt: skip
OTHER_IMAGES = {
    "pixels": {"dataset": TensorDataset(IMAGES * 0, LABELS)},
    "one pixel": {"dataset": TensorDataset(IMAGES.index_fill(3, torch.tensor(3), 0.5), LABELS)},
    "labels": {"dataset": TensorDataset(IMAGES, 1 - LABELS)},
}
EVERY = CHANGES | OTHER_IMAGES


class Three(torch.nn.Module):
    """The hyperplane with a third class that is never answered."""

    def forward(self, images):
        return torch.nn.functional.pad(hyperplane()(images), (0, 1), value=-100.0)


def changed(name, **more):
    """What `certify` is called with where the parameter `name` is another."""
    base = {"base": Three().eval()} if name == "num_classes" else {}
    return base | EVERY[name] | more


def test_every_parameter_of_a_record_is_asked_after_below(tmp_path):
    certify(tmp_path, facts={"dataset": "toy"})
    manifest = json.loads(next(tmp_path.glob("log-*.json")).read_text())
    assert manifest["parameters"].keys() == CHANGES.keys()


@pytest.mark.parametrize("name", EVERY)
def test_another_setting_gets_a_record_of_its_own_and_takes_no_row_from_this_one(name, tmp_path, monkeypatch):
    first, asked = certify(tmp_path), rows_asked_for(monkeypatch)
    again = certify(tmp_path, **changed(name))
    assert asked == IDS and len(list(tmp_path.glob("log-*.tsv"))) == 2
    fresh = certify(tmp_path / "alone", **changed(name))
    pd.testing.assert_frame_equal(without_time(again), without_time(fresh))
    pd.testing.assert_frame_equal(certify(tmp_path), first)


def rows_asked_for(monkeypatch):
    """The ids of every group that is certified from now on."""
    asked, really = [], certification.certify_group
    spy = lambda g, d, ids, *how: asked.extend(ids) or really(g, d, ids, *how)  # noqa: E731
    monkeypatch.setattr(certification, "certify_group", spy)
    return asked


@pytest.mark.parametrize("more", [[*IDS, 1, 3], [1, *IDS], IDS[::2], IDS[::-1], [3, *IDS[:2], 5]], ids=str)
def test_other_ids_are_a_record_of_their_own_that_takes_up_the_rows_of_the_same_run(more, tmp_path, monkeypatch):
    certify(tmp_path)
    asked = rows_asked_for(monkeypatch)
    log = certify(tmp_path, ids=more)
    assert sorted(asked) == sorted(set(more) - set(IDS)) and log["idx"].tolist() == more
    assert len(list(tmp_path.glob("log-*.tsv"))) == 2
    pd.testing.assert_frame_equal(without_time(log), without_time(certify(tmp_path / "alone", ids=more)))


def test_rows_of_an_unfinished_record_are_taken_up_too(tmp_path, monkeypatch):
    def stop(done):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify(tmp_path, progress=stop)
    asked = rows_asked_for(monkeypatch)
    certify(tmp_path, ids=IDS[:8])
    assert asked == IDS[6:8] and len(list(tmp_path.glob("log-*.partial"))) == 2


def test_after_a_crash_a_group_is_computed_whole_so_that_its_batches_hold_the_same_samples(tmp_path, monkeypatch):
    def stop(done):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify(tmp_path, progress=stop)
    partial = next(tmp_path.glob("log-*.tsv.partial"))
    partial.write_text("".join(partial.read_text().splitlines(keepends=True)[:5]))  # four rows: a group and a third
    asked = rows_asked_for(monkeypatch)
    log = certify(tmp_path)
    assert asked == IDS[3:]
    pd.testing.assert_frame_equal(without_time(log), without_time(certify(tmp_path / "whole")))


def test_only_the_images_that_are_still_the_same_are_taken_up(tmp_path, monkeypatch):
    certify(tmp_path)
    asked = rows_asked_for(monkeypatch)
    attacked = IMAGES.clone()
    attacked[4, 0, 0, 0] = 1 - attacked[4, 0, 0, 0]
    certify(tmp_path, dataset=TensorDataset(attacked, LABELS))
    assert asked == [4]


@pytest.mark.parametrize("name", [*CHANGES][:-1])
def test_facts_cannot_hide_what_a_record_says(name, tmp_path):
    with pytest.raises(ValueError, match=f"facts = '{name}'"):
        certify(tmp_path, facts={name: 0.2})


@dataclass(frozen=True)
class Linf(Gaussian):
    """A noise of one's own that kept its parent's name."""

    def radius(self, p_a, p_b=None):
        return super().radius(p_a, p_b) / 12**0.5


@dataclass(frozen=True)
class Looser(Bound):
    """A bound of one's own that kept its parent's name."""


def test_a_noise_or_a_bound_that_a_record_could_not_name_is_refused_before_sampling(tmp_path):
    with pytest.raises(ValueError, match="enter it in NOISES"):
        certify(tmp_path, sigma=Linf(0.5))
    with pytest.raises(ValueError, match="enter it in BOUNDS"):
        certify(tmp_path, n0=None, n=None, alpha=None, certificate=Certificate(n0=9, n=9, alpha=0.1, bound=Looser()))
    assert not list(tmp_path.iterdir())


def test_a_certificate_and_its_parts_are_not_given_together(tmp_path):
    with pytest.raises(ValueError, match="leave out n0, n, alpha"):
        certify(tmp_path, certificate=Certificate(n0=9, n=9, alpha=0.1))


class Keeps(torch.nn.Module):
    """Keeps what it saw last: harmless. With `moves` it also learns from it, slowly: no fixed function."""

    def __init__(self, moves=False):
        super().__init__()
        self.moves = moves
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images):
        self.last = images
        if self.moves:
            self.mean.mul_(0.9995).add_(images.mean() * 0.0005)
        return hyperplane()(images - self.mean)


def test_a_base_that_changes_itself_gets_no_record_and_one_that_keeps_its_last_batch_does(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="base changes a buffer or an attribute whenever it answers"):
        certify(tmp_path, base=Keeps(moves=True).eval())
    first = certify(tmp_path, base=Keeps().eval())
    asked = rows_asked_for(monkeypatch)
    pd.testing.assert_frame_equal(certify(tmp_path, base=Keeps().eval()), first)
    assert asked == []


def test_a_random_transform_is_refused_before_anything_is_sampled(tmp_path):
    class Random(torch.utils.data.Dataset):
        def __len__(self):
            return 24

        def __getitem__(self, i):
            return torch.rand(1, 3, 4), 0

    with pytest.raises(ValueError, match="other images each time"):
        certify(tmp_path, dataset=Random())
    assert not list(tmp_path.iterdir())


class FromOutside(torch.nn.Module):
    """A class that asks its surroundings: hashes see no difference."""

    def forward(self, images):
        return float(os.environ.get("SIGN", "1")) * hyperplane()(images)


def test_a_base_that_depends_on_what_no_hash_sees_is_told_by_the_probe(tmp_path, monkeypatch):
    certify(tmp_path, base=FromOutside().eval())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setenv("SIGN", "-1.0")
    with pytest.raises(ValueError, match=r"its base answered the probe otherwise.*Choose another path"):
        certify(tmp_path, base=FromOutside().eval())
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    asked = rows_asked_for(monkeypatch)
    certify(tmp_path, base=FromOutside().eval(), ids=IDS[:5])
    assert asked == IDS[:5]


def test_another_machines_rounding_is_the_same_base(tmp_path, monkeypatch):
    first = certify(tmp_path, base=FromOutside().eval())
    monkeypatch.setenv("SIGN", "1.00001")
    pd.testing.assert_frame_equal(certify(tmp_path, base=FromOutside().eval()), first)


class InPlace(torch.nn.Module):
    """It normalises the batch that it is given, where it lies."""

    def forward(self, images):
        return hyperplane()(images.sub_(0.25).mul_(2))


def test_a_base_that_works_in_place_is_a_fixed_function(tmp_path):
    log = certify(tmp_path, base=InPlace().eval())
    other = torch.nn.Sequential(Shifted(), hyperplane()).eval()
    assert without_time(log).equals(without_time(certify(tmp_path, base=other)))


class Shifted(torch.nn.Module):
    def forward(self, images):
        return images.sub(0.25).mul(2)


@pytest.mark.parametrize("value", [float("nan"), -0.5, 255.0, float("inf")])
def test_a_pixel_of_any_image_is_checked_before_anything_is_sampled(value, tmp_path, monkeypatch):
    monkeypatch.setattr(SmoothedClassifier, "sample", lambda *_, **__: pytest.fail("sampled"))
    images = IMAGES.clone()
    images[IDS[-1], 0, 1, 1] = value
    with pytest.raises(ValueError, match=rf"images must lie in \[0, 1\]; image {IDS[-1]} has values"):
        certify(tmp_path, dataset=TensorDataset(images, LABELS))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("label", [-1, 2, 99])
def test_a_label_that_is_no_class_is_refused_before_anything_is_written(label, tmp_path):
    labels = LABELS.index_fill(0, torch.tensor(4), label)
    with pytest.raises(ValueError, match=rf"label of image 4 must lie in 0 \.\.\. 1; got {label}"):
        certify(tmp_path, dataset=TensorDataset(IMAGES, labels))
    assert not list(tmp_path.iterdir())


KINDS = [
    np.array(IDS),
    torch.tensor(IDS),
    pd.Series(IDS),
    tuple(IDS),
    range(0, 24, 2),
    np.array(IDS, np.uint8),
    iter(IDS),
]


@pytest.mark.parametrize("ids", KINDS, ids=lambda ids: type(ids).__name__)
def test_ids_are_whole_numbers_of_any_kind_in_any_container(ids, tmp_path):
    assert certify(tmp_path, ids=ids)["idx"].tolist() == IDS


@pytest.mark.parametrize("bad", [[0.5], ["0"], [True], [-1], [2**32], [0, 0], [None], [24], []], ids=str)
def test_ids_that_are_none_are_refused_by_value(bad, tmp_path):
    with pytest.raises(ValueError, match="ids"):
        certify(tmp_path, ids=bad)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [np.int64, np.float64, torch.tensor, float])
def test_sample_sizes_are_whole_numbers_of_any_kind(kind, tmp_path):
    log = certify(tmp_path, n0=kind(100), n=kind(400))
    assert (log["n"] == 400).all() and (log["n0"] == 100).all()


@pytest.mark.parametrize(("name", "bad"), [("n", 0), ("n", 10.5), ("n", "10"), ("n0", -1), ("n0", True), ("n", None)])
def test_sample_sizes_that_are_none_are_refused_by_name_and_value(name, bad, tmp_path):
    with pytest.raises(ValueError, match=rf"{name}\b.*{bad}"):
        certify(tmp_path, **{name: bad})


def test_a_data_set_that_is_read_image_by_image_gives_the_same_log(tmp_path):
    lazy = torch.utils.data.Subset(DATASET, range(24))
    pd.testing.assert_frame_equal(
        without_time(certify(tmp_path / "a", dataset=lazy)), without_time(certify(tmp_path / "b"))
    )


SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
import test_certification as t
from pathlib import Path
slow = t.certification.certify_group
def group(*arguments, **how):
    time.sleep(0.2)
    return slow(*arguments, **how)
t.certification.certify_group = group
t.certify(Path(sys.argv[1]))
"""


def test_a_killed_certification_goes_on_and_ends_with_the_same_log(tmp_path):
    expected = certify(tmp_path / "whole")
    script = SCRIPT.format(tests=str(certification.Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "killed")])
    deadline = time.monotonic() + 600
    while not any(f.stat().st_size > 200 for f in tmp_path.glob("killed/*.tsv.partial")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("killed/*.tsv"))
    rows_before = len(next(tmp_path.glob("killed/*.tsv.partial")).read_text().splitlines()) - 1
    assert 0 < rows_before < len(IDS)
    pd.testing.assert_frame_equal(without_time(certify(tmp_path / "killed")), without_time(expected))


def test_recounting_at_another_alpha_is_certifying_at_that_alpha(tmp_path):
    strict, loose = certify(tmp_path, alpha=1e-6), certify(tmp_path, alpha=0.05)
    again = recount(strict, alpha=0.05)
    assert (again["predict"] == loose["predict"]).all() and (strict["predict"] == ABSTAIN).sum() > 0
    assert np.allclose(again["radius"], loose["radius"], atol=1e-6)
    assert (again["correct"] == loose["correct"]).all()


def test_projecting_to_another_n_scales_the_counts(tmp_path):
    log = certify(tmp_path)
    projected = recount(log, n=4000)
    n_a = log["n_a"].to_numpy() * 10
    assert np.allclose(projected["radius"], certified_radius(lower_confidence_bound(n_a, 4000, 0.001), 0.5))


def test_projecting_a_two_class_log_rounds_the_runner_up_up(tmp_path):
    log = certify(tmp_path, two_class=True)
    p = recount(log, n=999)
    exact = log[["n_a", "n_b"]] * 999 / 400
    assert (p["n_b"] >= exact["n_b"]).all() and (p["n_a"] <= exact["n_a"]).all()
    assert ((p["n_b"] - exact["n_b"]) < 1).all() and (p["n_b"] > exact["n_b"]).any()


def test_a_sequential_log_says_what_certify_says_and_its_manifest_names_the_rule(tmp_path):
    log = certify(tmp_path, n=5000, rule=RULE)
    g = SmoothedClassifier(hyperplane(), 0.5, 2, batch_size=300)
    truth = g.certify(IMAGES[IDS], IDS, 100, 5000, 0.001, rule=RULE)
    assert (log["n"] == truth.n).all() and (log["n_a"] == truth.n_a).all() and log["n"].nunique() > 2
    assert (log["radius"] <= truth.radius).all() and np.allclose(log["radius"], truth.radius, atol=1e-6)
    parameters = json.loads(next(tmp_path.glob("log-*.json")).read_text())["parameters"]
    assert parameters["rule"] == {"name": "AtRadii", "radii": [0.0, 0.25, 0.5], "beta": 0.01, "growth": 1.2}
    assert parameters["n"] == 5000


def test_another_stopping_rule_is_another_record(tmp_path):
    for rule in (RULE, AtRadii(radii=(0.5,)), AtRadii(radii=(0.5,), beta=0.1), Tolerance(tolerance=0.1), RULE):
        certify(tmp_path, ids=IDS[:2], rule=rule)
    assert len(list(tmp_path.glob("log-*.tsv"))) == 4


def test_a_sequential_log_is_recounted_with_the_bound_that_is_valid_for_it(tmp_path):
    log = certify(tmp_path, n=5000, rule=RULE)
    assert np.allclose(recount(log)["radius"], log["radius"], atol=1e-6)
    looser = recount(log, alpha=0.05)
    assert np.allclose(looser["radius"], anytime_radius(log["n_a"], log["n"], 0.5, 0.05))
    assert (looser["radius"] >= log["radius"]).all()


def test_recounting_by_another_bound_is_certifying_by_it(tmp_path):
    one, two = certify(tmp_path), certify(tmp_path, two_class=True)
    again = recount(one, bound=Bound(two_class=True))
    assert np.allclose(again["radius"], two["radius"], atol=1e-6)
    assert set(again["bound"]) == {"clopper-pearson, two-class"}


def test_votes_that_a_rule_collected_are_not_bounded_as_if_n_had_been_fixed(tmp_path):
    with pytest.raises(ValueError, match="'clopper-pearson' needs a fixed n"):
        recount(certify(tmp_path, rule=RULE), bound=Bound())


@pytest.mark.parametrize(
    ("lost", "advice"), [("n_a", "a paper's log takes recertify"), ("bound", "make the record again")]
)
def test_a_log_without_counts_or_names_is_not_recounted(lost, advice, tmp_path):
    with pytest.raises(ValueError, match=f"no column {lost}.*{advice}"):
        recount(certify(tmp_path).drop(columns=lost), alpha=0.01)


class Spread(torch.nn.Module):
    """Class 0 with probability 0.45 under noise of 0.5 about the middle grey, five others with 0.11 each."""

    def forward(self, images):
        share = torch.special.ndtr((images.flatten(1).mean(1) - 0.5) * 12**0.5 / 0.5)
        return torch.nn.functional.one_hot(((share - 0.45) / 0.11 + 1).clamp(0, 5.999).long(), 6).float()


@pytest.mark.parametrize("rule", [None, AtRadii(radii=(0, 0.125)), Tolerance(tolerance=0.05)])
def test_the_two_class_bound_certifies_where_the_votes_of_the_others_are_spread(rule, tmp_path):
    greys = TensorDataset(torch.full((4, 1, 3, 4), 0.5), torch.zeros(4, dtype=torch.long))
    g, arguments = SmoothedClassifier(Spread().eval(), 0.5, 6), {"n0": 100, "n": 5000, "alpha": 0.001, "rule": rule}
    one = certify_dataset(g, greys, range(4), tmp_path / "log", **arguments)
    two = certify_dataset(g, greys, range(4), tmp_path / "log", **arguments, two_class=True)
    exact = 0.5 * (norm.ppf(0.45) - norm.ppf(0.11)) / 2
    assert (one["radius"] == 0).all() and (two["predict"] == 0).all()
    assert ((0.125 if rule else 0.8 * exact) < two["radius"]).all() and (two["radius"] < exact).all()
    assert np.allclose(recount(two)["radius"], two["radius"], atol=2e-6)
    manifests = [json.loads(path.read_text())["parameters"] for path in tmp_path.glob("log-*.json")]
    kind = "anytime" if rule else "clopper-pearson"
    assert sorted(parameters["bound"] for parameters in manifests) == [kind, f"{kind}, two-class"]
