"""The batch size that the kit chooses: found on a simulated clock, kept between calls, without a trace in counts."""

import os
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch
from toys import Recorder, hyperplane

from lib.machine.memory import MALLOC
from lib.sampling import class_counts
from lib.sampling.pace import FIRST, LARGEST, Pace, found, pace_of
from lib.smoothing import SmoothedClassifier

IMAGES = torch.rand(3, 1, 3, 4, generator=torch.Generator().manual_seed(1))
FIRST_SIZE, LARGEST_SIZE = 32, LARGEST["cpu"]
CACHES = [2**k for k in range(2, 13)]


def law(cache, launch=8):
    """Seconds a sample at a batch size: a batch has its price, and each doubling past a cache costs a third more."""
    return lambda size: 1 + launch / size / 8 + max(0.0, torch.tensor(size / cache).log2().item()) / 3


def fastest(cost):
    return min(cost(2**k) for k in range(13))


def spent(pace, n, cost, disturbed=()):
    """Seconds that n samples take at `pace`; timed batches whose number is in `disturbed` take ten times as long."""
    seconds, tries = 0.0, 0
    while n:
        size, timed = pace.plan(n)
        taken = min(n, 2 * size if timed else size)
        slow = 10 if timed and tries in disturbed else 1
        seconds += slow * taken * cost(min(size, n))
        if timed:
            pace.took(size, slow * cost(size))
            tries += 1
        n -= taken
    return seconds


@pytest.mark.parametrize("cache", CACHES)
def test_the_search_ends_at_a_fast_size_and_costs_little_of_a_long_run(cache):
    cost, pace = law(cache), Pace(FIRST_SIZE, LARGEST_SIZE, searching=True)
    seconds = spent(pace, 100_000, cost)
    reached = min(cost(2**k) for k in range(FIRST_SIZE.bit_length() - 1, 13))  # there is no way down from the first
    assert not pace.searching and cost(pace.size) <= 1.02 * reached
    assert seconds <= 1.03 * 100_000 * reached


@pytest.mark.parametrize("cache", [c for c in CACHES if c >= FIRST_SIZE])
def test_at_three_hundred_samples_it_costs_little_and_later_calls_cost_nothing(cache):
    cost, pace = law(cache), Pace(FIRST_SIZE, LARGEST_SIZE, searching=True)
    best = 300 * min(cost(min(300, 2**k)) for k in range(13))
    first, *_, last = [spent(pace, 300, cost) for _ in range(10)]
    assert first <= 1.05 * best and last <= 1.02 * best


@pytest.mark.parametrize("disturbed", range(8))
def test_another_process_in_the_way_once_does_not_end_the_search(disturbed):
    cost, pace = law(256), Pace(FIRST_SIZE, LARGEST_SIZE, searching=True)
    spent(pace, 100_000, cost, disturbed={disturbed})
    assert cost(pace.size) <= 1.03 * fastest(cost)


def test_a_size_that_did_not_fit_is_never_tried_again():
    pace = Pace(FIRST_SIZE, LARGEST_SIZE, searching=True)
    spent(pace, 3000, law(4096))
    tried = pace.plan(100_000)[0]
    assert pace.halve(tried) == pace.plan(100_000)[0] < tried and not pace.searching


# ---- in class_counts -------------------------------------------------------------------------------------------


def count(base, n=400, images=IMAGES, **changed):
    return class_counts(base, images, None, n, **{"sigma": 0.5, "num_classes": 2, "batch_size": "auto"} | changed)


@pytest.mark.parametrize("n", [1, 299, 60_000])
def test_every_sample_is_shown_once_and_its_noise_is_that_of_a_given_size(n):
    found_out, given = Recorder().eval(), Recorder().eval()
    count(found_out, n, IMAGES[:1], num_classes=3), count(given, n, IMAGES[:1], num_classes=3, batch_size=100)
    assert torch.equal(found_out.seen, given.seen)


def test_counts_are_those_of_a_given_size():
    assert torch.equal(count(hyperplane(), 30_000), count(hyperplane(), 30_000, batch_size=7))


def test_what_one_call_found_the_next_goes_on_with_and_other_shapes_do_not():
    base = Recorder().eval()
    count(base, 60_000, num_classes=3)
    assert pace_of(base, IMAGES, "auto") is pace_of(base, IMAGES[:1], "auto")
    wide = pace_of(base, torch.rand(1, 3, 224, 224), "auto")
    assert wide.size == 4 and wide is not pace_of(base, IMAGES, "auto")
    g = SmoothedClassifier(base, 0.5, 3)
    assert g.batch_size == "auto" and g.batch_sizes_found == found(base) != []
    assert SmoothedClassifier(base, 0.5, 3, batch_size=8).batch_sizes_found == []


class Words(Recorder):
    compute = "float32, compiled"


@pytest.mark.parametrize("make", [Words, lambda: torch.compile(Recorder(), backend="eager")])
def test_what_is_compiled_sees_one_size(make):
    pace = pace_of(make().eval(), torch.rand(1, 3, 32, 32), "auto")
    assert not pace.searching and pace.size.bit_count() == 1 and pace.size * 3 * 32 * 32 <= FIRST["cpu"]


def test_too_large_a_size_is_left_out_without_a_word():
    class Greedy(Recorder):
        def forward(self, images):
            if len(images) > 100:
                raise MemoryError
            return super().forward(images)

    base, plain = Greedy().eval(), Recorder().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(count(base, num_classes=3), count(plain, num_classes=3))
    assert torch.equal(base.seen, plain.seen) and all(size <= 100 for size in found(base))


@pytest.mark.parametrize("wrong", ["fast", "100", "", "AUTO", None, 0, 1.5])
def test_any_other_batch_size_is_refused_by_name(wrong):
    for call in (
        lambda: count(hyperplane(), batch_size=wrong),
        lambda: SmoothedClassifier(hyperplane(), 0.5, 2, batch_size=wrong),
    ):
        with pytest.raises(ValueError, match="batch_size must be a whole number >= 1"):
            call()


# ---- memory ----------------------------------------------------------------------------------------------------

FAULTS = """
    import resource, torch
    from lib.machine.memory import keep_memory
    layers = lambda: [torch.ones(4_000_000) for _ in range(20)] and resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = keep_memory()
    layers(), layers(), layers()
    before = layers()
    print(int(kept), layers() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="malloc is set where it is glibc's")
@pytest.mark.parametrize("name", ["", *MALLOC])
def test_memory_is_kept_unless_the_environment_says_otherwise(name):
    environment = {key: value for key, value in os.environ.items() if key not in MALLOC} | (
        {name: "4096"} if name else {}
    )
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FAULTS)], env=environment, capture_output=True, text=True, check=True
    )
    kept, faults = map(int, done.stdout.split())
    assert (kept, faults < 1000) == ((0, False) if name else (1, True))  # a layer of 16 MB has 3906 pages
