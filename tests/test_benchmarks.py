"""The benchmarks count what they say they count; how fast it goes is for people to read, not for tests."""

import pytest
import torch
from torch import nn

from benchmarks import apis, throughput
from benchmarks.cost import cost


def test_the_papers_loop_counts_every_sample():
    counts = throughput.papers_loop(throughput.digits_cnn().eval(), torch.rand(2, *throughput.DIGIT), 1100, 10)
    assert counts.sum(axis=1).tolist() == [1100, 1100]


def test_a_row_compares_the_kit_with_the_forward_pass_and_the_peers(monkeypatch):
    monkeypatch.setitem(throughput.MODELS, "tiny", (throughput.digits_cnn, throughput.DIGIT, (400, 400)))
    row = throughput.measure("tiny", torch.device("cpu"), rounds=1, fast="bfloat16, folded")
    ratios = [row[name] for name in row if " / " in name and row[name] != "not installed"]
    assert row["model"] == "tiny" and len(ratios) >= 6 and all(float(text.split()[0]) > 0 for text in ratios)
    assert row["fast"] == "bfloat16, folded"


def test_a_batch_that_does_not_fit_ends_the_search_for_the_best(monkeypatch):
    class Small(torch.nn.Module):
        def forward(self, images):
            if len(images) > 50:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return images

    images = torch.rand(1, *throughput.DIGIT)
    assert throughput.best_batch_size(Small(), images, 400) in (25, 50)
    monkeypatch.setitem(throughput.BATCH_SIZES, "cpu", (64, 256))
    with pytest.raises(torch.OutOfMemoryError):
        throughput.best_batch_size(Small(), images, 400)


@pytest.mark.parametrize(
    "name", [name for name, (_, shape, _) in throughput.MODELS.items() if shape == throughput.DIGIT]
)
def test_what_has_batch_norms_is_folded(name):
    words = throughput.computed(throughput.MODELS[name][0]().eval(), "float32, channels-last, folded").compute
    assert words == "float32, channels-last, folded"


def test_folding_is_left_out_where_there_is_nothing_to_fold_or_torch_fx_cannot_follow():
    class Choosy(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(1)

        def forward(self, images):
            return self.norm(images) if images.sum() > 0 else images

    for network in (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), Choosy()):
        assert throughput.computed(network.eval(), "float32, folded").compute == "float32"


def test_a_model_whose_library_is_missing_is_left_out(monkeypatch, capsys):
    def measured(name):
        if "DDPM" in name:
            raise ModuleNotFoundError("No module named 'diffusers'")
        return [{"model": name}]

    rows = [row["model"] for row in throughput.rows_of(throughput.MODELS, measured)]
    assert rows == [name for name in throughput.MODELS if "DDPM" not in name]
    assert "DDPM + ResNet-110 is left out: No module named 'diffusers'" in capsys.readouterr().err


def test_no_row_is_begun_after_the_limit(monkeypatch, capsys):
    monkeypatch.setattr(throughput, "measure", lambda name, *_: {"model": name})
    monkeypatch.setattr("sys.argv", ["throughput", "--all", "--limit", "0"])
    throughput.main()
    assert capsys.readouterr().out.splitlines()[2:] == ["| digits_cnn |"]


def test_the_size_that_is_found_is_held_against_given_ones_and_the_loop_at_both_n(monkeypatch):
    monkeypatch.setitem(throughput.MODELS, "tiny", (throughput.digits_cnn, throughput.DIGIT, (400, 400)))
    rows = list(throughput.auto("tiny", torch.device("cpu"), rounds=1))
    assert [row["n"] for row in rows] == [300, 400] and all(row["best given"] <= row["n"] for row in rows)
    assert all(float(row[name].split()[0]) > 0 for row in rows for name in row if " / " in name)


def test_speed_and_memory_are_those_of_the_setting(monkeypatch):
    counted = []
    monkeypatch.setattr(throughput, "kit", lambda model, images, n, **how: counted.append((len(images), n, how)))
    monkeypatch.setattr(throughput, "seconds", lambda call, device: call() or 2.0)
    setting = {"n": 200, "images": 3, "classes": 20, "batch_size": 100}
    assert throughput.growth_of(setting, "cpu")["samples/s"] == 300
    assert counted == [(3, 200, {"batch_size": 100, "num_classes": 20})]


def test_cost_is_samples_over_the_rate():
    table = cost(50_000, 1000.0, 10)
    fixed = table.iloc[0]
    assert fixed["samples"] == 100_100 * 50_000
    assert fixed["device-hours"] == pytest.approx(100_100 * 50_000 / 1000 / 3600)
    assert fixed["hours on 10"] == pytest.approx(fixed["device-hours"] / 10)
    assert table["samples an image"].iloc[-1] < fixed["samples an image"] / 20, "one radius, sequentially"


@pytest.mark.parametrize(
    ("wrong", "says"), [({"rate": 0.0}, "rate must be positive"), ({"sigma": 0.3}, "no ImageNet model at sigma = 0.3")]
)
def test_a_cost_that_cannot_be_told_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        cost(**{"images": 10, "rate": 1.0, "workers": 1} | wrong)


def test_the_benchmark_of_services_gives_a_rate_and_two_shares():
    found = apis.measure(queries=20, rounds=1)
    assert found["bare, queries a second"] > 0 and found["ours / bare"] > 0 and 0 < found["share for the log"] < 1
