"""The readers, on small logs of our own numbers in each format that the papers' code writes."""

import pandas as pd
import pytest
from scipy.stats import beta, norm

from lib.machine.files import partial_path
from lib.records import ABSTAIN, Record, Row, detect_alpha, read_log, recertify

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
_ROWS = "0\t3\t3\t0.512\t1\t{}\n20\t7\t-1\t0.0\t0\t{}\n40\t4\t9\t1e-05\t0\t{}\n"
COHEN = HEADER + _ROWS.format("0:00:14.250000", "0:00:14", "1:02:03.500000")
COHEN_OLD = HEADER + _ROWS.format("14.25", "14.0", "3723.5")
CARLINI = HEADER + "".join(
    f"{i}\t{label}\t{predict}\t{radius}\t{total}\t0:02:01.500000\n"
    for i, (label, predict, radius, total) in enumerate(
        [(1, 1, 0.5, 1), (2, 2, 0.25, 2), (3, 5, 0.1, 2), (4, 4, 0.5, 3), (6, -1, 0.0, 3), (7, 7, 0.5, 4)]
    )
)
PREDICT = "idx\tlabel\tpredict\tcorrect\ttime\n0\t3\t3\t1\t0:00:01.5\n20\t7\t-1\t0\t0:00:00.158496\n"
ATTACKED = "idx\tlabel\tpredict\tbasePredict\tcorrect\ttime\n0\t3\t3\t5\t1\t0:00:01.5\n1\t8\t-1\t8\t0\t1 day, 0:00:01\n"


@pytest.fixture
def log(tmp_path):
    def read(text: str, name: str = "log") -> pd.DataFrame:
        (tmp_path / name).write_text(text)
        return read_log(tmp_path / name)

    return read


def radius(k: int, n: int, alpha: float, sigma: float) -> float:
    """sigma Phi^-1 of the Clopper-Pearson bound, by SciPy's distributions."""
    return float(sigma * norm.ppf(beta.ppf(alpha, k, n - k + 1)))


@pytest.mark.parametrize("text", [COHEN, COHEN_OLD, COHEN.rstrip("\n"), COHEN.replace("\n", "\r\n")],
                         ids=["durations", "bare seconds", "no last newline", "Windows"])  # fmt: skip
def test_a_certify_log_is_read_whatever_its_times_look_like(log, text):
    expected = {"idx": [0, 20, 40], "label": [3, 7, 4], "predict": [3, ABSTAIN, 9]}
    expected |= {"radius": [0.512, 0, 1e-5], "correct": [True, False, False], "time": [14.25, 14.0, 3723.5]}
    pd.testing.assert_frame_equal(log(text), pd.DataFrame(expected))


def test_a_running_total_is_read_as_predict_equals_label(log):
    assert log(CARLINI)["correct"].tolist() == [True, True, False, True, False, True]


@pytest.mark.parametrize("flags", [(1, 1, 0, 1, 0, 0), (1, 2, 3, 4, 4, 5), (0, 1, 1, 2, 2, 3)], ids=str)
def test_a_correct_that_is_neither_flag_nor_running_total_is_refused(log, flags):
    lines = CARLINI.splitlines()[1:]
    text = HEADER + "".join("\t".join([*line.split("\t")[:4], str(flag), "1.5"]) + "\n"
                            for line, flag in zip(lines, flags))  # fmt: skip
    with pytest.raises(ValueError, match=r"line \d has a correct that is neither"):
        log(text)


def test_a_predict_log_has_no_radius(log):
    read = log(PREDICT)
    assert list(read) == ["idx", "label", "predict", "correct", "time"]
    assert read["time"].tolist() == [1.5, 0.158496]


def test_the_other_columns_of_an_attacked_predict_log_are_kept(log):
    read = log(ATTACKED)
    assert read["basePredict"].tolist() == [5, 8] and read["time"].tolist() == [1.5, 86401.0]


def test_our_own_record_is_read_finished_or_not(tmp_path):
    path, columns = tmp_path / "own.tsv", ["idx", "label", "predict", "radius", "correct", "time"]
    same = {"label": 1, "predict": 1, "radius": 0.1234567, "time": 0.25, "n0": 10, "n": 100, "n_a": 90, "selected": 1}
    rows = [Row(idx=i, n_b=i, sigma=0.5, alpha=0.01, seed=7, **same) for i in range(3)]
    with Record(path, {}, range(3)) as record:
        record.append(rows)
        unfinished = read_log(partial_path(path))
        record.finish({})
    pd.testing.assert_frame_equal(read_log(path), unfinished)
    assert list(unfinished)[:6] == columns and unfinished["n_b"].tolist() == [0, 1, 2]
    assert unfinished["radius"].tolist() == [0.123456] * 3 and unfinished["correct"].dtype == bool


def test_half_a_line_at_the_end_of_an_unfinished_log_is_left_out(log):
    assert len(log(COHEN[:-8], "log.partial")) == 2


def test_a_log_that_has_only_begun_is_empty(log):
    assert log(HEADER, "log.partial").empty


@pytest.mark.parametrize(
    ("bad", "why"),
    [("0\t3\t3\tnan\t1\t14.0", "no valid radius"), ("0\t3\t3\t-0.5\t1\t14.0", "no valid radius"),
     ("0\t3\t3\tinf\t1\t14.0", "no valid radius"), ("0\t3\t3\t0.5\t1", "does not have 6 cells"),
     ("0\t3\t3\t0.5\t1\t14.0\t7", "does not have 6 cells"), ("0\t3\tdog\t0.5\t1\t14.0", "no valid predict"),
     ("0\t3.5\t3\t0.5\t0\t14.0", "no valid label"), ("0\t3\t3\t0.5\t1\tsoon", "no valid time"),
     ("0\t3\t3\t0.5\t1\t", "no valid time"), ("20\t3\t3\t0.5\t1\t14.0", "repeats an image")],
)  # fmt: skip
def test_a_bad_row_is_refused_with_file_line_and_content(log, bad, why):
    first, last = "20\t7\t7\t0.5\t1\t14.0\n", "60\t7\t8\t0.5\t0\t14.0\n"
    with pytest.raises(ValueError, match=rf"log, line 3 (has )?{why}") as error:
        log(HEADER + first + bad + "\n" + last)
    assert repr(bad) in str(error.value)


@pytest.mark.parametrize("text", ["", "\n", COHEN.removeprefix(HEADER), "0\tTrue\t0.375\tcat\tcat\n"])
def test_a_file_without_the_header_of_a_log_is_refused(log, text):
    with pytest.raises(ValueError, match=r"line 1: expected a header with idx, label, predict"):
        log(text)


def printed_log(counts: list[int], n: int, alpha: float, sigma: float) -> pd.DataFrame:
    """A log as the papers print it: radii with 3 significant digits, 0 and -1 for an abstention."""
    radii = [float(f"{max(radius(k, n, alpha, sigma), 0.0):.3}") for k in counts]
    predict = [1 if r > 0 else ABSTAIN for r in radii]
    return pd.DataFrame({"idx": range(len(radii)), "label": 1, "predict": predict, "radius": radii,
                         "correct": [p == 1 for p in predict], "time": 1.0})  # fmt: skip


@pytest.mark.parametrize("alpha", [0.001, 0.01])
@pytest.mark.parametrize(("n", "sigma"), [(100_000, 0.25), (10_000, 1.0)])
def test_the_ladder_tells_the_alpha_of_a_log(n, sigma, alpha):
    log = printed_log([n, n - 1, n - 3, n - 10, n * 9 // 10, n // 3], n, alpha, sigma)
    assert detect_alpha(log, sigma, n) == alpha


def test_no_alpha_is_told_where_both_or_none_fit():
    assert detect_alpha(printed_log([80_000, 40_000], 100_000, 0.01, 0.25), 0.25, 100_000) is None
    assert detect_alpha(printed_log([150_000, 149_999], 150_000, 0.001, 0.25), 0.25, 100_000) is None


def test_a_log_certified_again_is_the_log_of_the_same_counts():
    counts, n, sigma = [1000, 999, 940, 800, 560, 545, 400], 1000, 0.5  # steps wide enough for 3 digits
    again = recertify(printed_log(counts, n, 0.01, sigma), sigma, n, 0.01, 0.001)
    expected = [max(radius(k, n, 0.001, sigma), 0) for k in counts]
    assert again["radius"].tolist() == pytest.approx(expected, rel=1e-6)
    assert again["predict"].tolist() == [1, 1, 1, 1, 1, ABSTAIN, ABSTAIN]
    assert again["correct"].tolist() == [True] * 5 + [False] * 2


def test_certifying_again_leaves_the_log_itself_alone():
    log = printed_log([1000, 545], 1000, 0.01, 0.5)
    before = log.copy()
    recertify(log, 0.5, 1000, 0.01, 0.001)
    pd.testing.assert_frame_equal(log, before)
