"""The readers, on small logs of our own numbers in each format that the papers' code writes."""

import gzip
import math

import pandas as pd
import pytest
from scipy.stats import beta, norm

from lib.machine.files import partial_path
from lib.records import ABSTAIN, Row, detect_alpha, read_log, recertify
from lib.records.row import HEADER as HEADER_OF_OURS

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
    same |= {"sigma": 0.5, "alpha": 0.01, "seed": 7, "noise": "gaussian", "bound": "clopper-pearson"}
    text = HEADER_OF_OURS + "".join(Row(idx=i, n_b=i, image=f"{i:016}", **same).line() for i in range(3))
    path.write_text(text)
    partial_path(path).write_text(text + "3\t1\t1\t0.12")
    read = read_log(path)
    pd.testing.assert_frame_equal(read_log(partial_path(path)), read)
    assert list(read)[:6] == columns and read["n_b"].tolist() == [0, 1, 2] and read["image"][2] == "0" * 15 + "2"
    assert read["radius"].tolist() == [0.123456] * 3 and read["correct"].dtype == bool
    assert detect_alpha(read, 0.5, 100) == 0.01


DENSEPURE = "idx\tlabel\tpredict\tradius\tcorrect\n0\t3\t3\t0.512\t1\n20\t7\t-1\t0.0\t0\n40\t4\t9\t1e-05\t0\n"
VISION_API = ("idx\tcorrect\tradius\tlabel\tpredict\n0\tTrue\t0.375\ttabby cat\ttabby cat\n"
              "1\tFalse\t0.000\tDog\t-1\n2\tFalse\t0.125\tDog\ttabby cat\n3\tTrue\t0.250\tDog\tDog\n")  # fmt: skip
HORVATH = ("idx\tlabel\tpredict\tradius proved\tcorrect\tlevels_needed\testimated_pr\ttime\n"
           "0\t3\t3\t1\t1\t0\t0.999\t0:00:01.5\n20\t7\t-1\t-1\t0\t1\t0.61\t0:00:02.5\n")  # fmt: skip


def test_a_merged_log_has_no_time(log):
    pd.testing.assert_frame_equal(log(DENSEPURE), log(COHEN).drop(columns="time"))


def test_class_names_become_numbers_and_are_kept(log):
    read = log(VISION_API)
    assert read["label"].tolist() == [1, 0, 0, 0] and read["predict"].tolist() == [1, ABSTAIN, 1, 0]
    assert read["correct"].tolist() == [True, False, False, True]
    assert read["label_name"].tolist() == ["tabby cat", "Dog", "Dog", "Dog"]
    assert read["predict_name"].tolist() == ["tabby cat", "-1", "tabby cat", "Dog"]


@pytest.mark.parametrize(("good", "bad"), [("1\tFalse\t0.000\tDog", "1\tFalse\t0.000\t5"), ("\tDog\tDog", "\tDog\t0"),
                                           ("2\tFalse\t0.125\tDog", "2\tFalse\t0.125\t"), ("Dog\tDog", "nan\tDog"),
                                           ("Dog\tDog", "-1\tDog")])  # fmt: skip
def test_names_and_numbers_are_not_mixed(log, good, bad):
    with pytest.raises(ValueError, match=r"has no valid (label|predict)"):
        log(VISION_API.replace(good, bad))


def test_a_flag_of_a_radius_proved_is_not_taken_for_a_radius(log):
    read = log(HORVATH)
    assert "radius" not in read and read["radius proved"].tolist() == [1, -1]


WORDS = [("True", "False"), ("true", "false"), ("1", "0"), ("1.0", "0.0")]


@pytest.mark.parametrize(("yes", "no"), WORDS)
def test_correct_may_be_a_word(log, yes, no):
    text = COHEN.replace("\t1\t0:00:14.25", f"\t{yes}\t0:00:14.25").replace("\t0\t0:00:14\n", f"\t{no}\t0:00:14\n")
    pd.testing.assert_frame_equal(log(text), log(COHEN))


@pytest.mark.parametrize("word", ["yes", "2", "", "TrueFalse"])
def test_another_word_for_correct_is_refused(log, word):
    with pytest.raises(ValueError, match=r"line 2 has (no valid|a) correct"):
        log(COHEN.replace("\t1\t0:00:14.25", f"\t{word}\t0:00:14.25"))


def test_a_log_written_by_pandas_is_read_again(log):
    first = log(COHEN)
    pd.testing.assert_frame_equal(log(first.to_csv(sep="\t", index=False)), first)


@pytest.mark.parametrize("flag", [0, 1])
def test_an_abstention_on_an_image_without_a_label_is_not_correct(log, flag):
    assert log(HEADER + f"0\t-1\t-1\t0.0\t{flag}\t1.5\n1\t2\t2\t0.5\t1\t1.5\n")["correct"].tolist() == [False, True]


PACKED = {"gz": lambda data: gzip.compress(data), "BOM": lambda data: b"\xef\xbb\xbf" + data,
          "both": lambda data: gzip.compress(b"\xef\xbb\xbf" + data),
          "empty lines": lambda data: data + b"\n \r\n\n"}  # fmt: skip


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
@pytest.mark.parametrize("text", [COHEN, PREDICT, CARLINI], ids=["certify", "predict", "total"])
@pytest.mark.parametrize("name", ["log", "log.tsv.gz"])
def test_a_log_is_read_packed_marked_or_with_empty_lines_at_its_end(log, tmp_path, pack, text, name):
    (tmp_path / name).write_bytes(pack(text.encode()))
    pd.testing.assert_frame_equal(read_log(tmp_path / name), log(text, "plain"))


NO_TEXT = {
    "UTF-16": (COHEN.encode("utf-16"), r"line 1 is no UTF-8: b'\\xff\\xfe"),
    "UTF-16 without a mark": (COHEN.encode("utf-16-le"), "line 1: expected a header"),
    "latin-1": ((COHEN + "60\tcaf\xe9\n").encode("latin-1"), r"line 5 is no UTF-8: b'60\\tcaf\\xe9'; save it as UTF-8"),
    "half a .gz": (gzip.compress(COHEN.encode())[:-20], "is a damaged .gz file"),
    "another .gz": (gzip.compress(COHEN.encode())[:12] + b"\xff" * 30, "is a damaged .gz file"),
}


@pytest.mark.parametrize(("data", "why"), NO_TEXT.values(), ids=NO_TEXT)
def test_a_file_that_is_no_utf_8_is_named_with_its_line(tmp_path, data, why):
    (tmp_path / "log").write_bytes(data)
    with pytest.raises(ValueError, match=r"log,? " + why):
        read_log(tmp_path / "log")


@pytest.mark.parametrize("name", ["time", "idx", "radius"])
def test_a_column_that_comes_twice_is_named(log, name):
    lines = [f"{line}\t{cell}" for line, cell in zip(COHEN.splitlines(), [name, "1", "2", "3"])]
    with pytest.raises(ValueError, match=f"log, line 1 has the column '{name}' twice"):
        log("\n".join(lines))


@pytest.mark.parametrize("cut", [3, 12, 20])
def test_a_log_that_was_cut_in_a_row_is_refused_with_the_line(log, cut):
    text = COHEN[: COHEN.index("40\t") + cut]
    with pytest.raises(ValueError, match=r"line 4 does not have 6 cells \(.*cut off\? delete this line\): '40"):
        log(text[: text.rindex("\t")])


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
     ("0\t3\t3\t0.5\t1\t", "no valid time"), ("20\t3\t3\t0.5\t1\t14.0", "repeats an image"),
     ("0\t3\t-1\t0.5\t0\t14.0", "abstains with a radius"), ("0\t-1\t-1\t1e-5\t1\t14.0", "abstains with a radius"),
     (f"{2**63}\t3\t3\t0.5\t1\t14.0", "no valid idx"), (f"{10**30}\t3\t3\t0.5\t1\t14.0", "no valid idx"),
     (f"0\t3\t{-2**64}\t0.5\t0\t14.0", "no valid predict"), ("", "does not have 6 cells")],
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


ROUNDED = {"3 digits": "{:.3}".format, "3 decimals": "{:.3f}".format, "4 decimals": "{:.4f}".format,
           "6 decimals": "{:.6f}".format, "all digits": repr,
           "6 decimals, down": lambda radius: math.floor(radius * 1e6) / 1e6}  # fmt: skip


def printed_log(counts: list[int], n: int, alpha: float, sigma: float, rounded="3 digits") -> pd.DataFrame:
    """A log as the papers print it: radii with 3 significant digits, say, 0 and -1 for an abstention."""
    radii = [float(ROUNDED[rounded](max(radius(k, n, alpha, sigma), 0.0))) for k in counts]
    predict = [1 if r > 0 else ABSTAIN for r in radii]
    return pd.DataFrame({"idx": range(len(radii)), "label": 1, "predict": predict, "radius": radii,
                         "correct": [p == 1 for p in predict], "time": 1.0})  # fmt: skip


@pytest.mark.parametrize("rounded", ROUNDED)
@pytest.mark.parametrize("alpha", [0.001, 0.01])
@pytest.mark.parametrize(("n", "sigma"), [(100_000, 0.25), (10_000, 1.0)])
def test_the_ladder_tells_the_alpha_of_a_log_however_it_is_rounded(n, sigma, alpha, rounded):
    log = printed_log([n, n - 1, n - 3, n - 10, n * 9 // 10, n // 3], n, alpha, sigma, rounded)
    assert detect_alpha(log, sigma, n) == alpha
    assert detect_alpha(log.head(1), sigma, n) == alpha


@pytest.mark.parametrize("radius", [0.9529, 1.9057, 3.8115])
def test_the_top_of_the_public_logs_with_four_decimals_tells_their_alpha(radius):
    log = pd.DataFrame({"radius": [radius, 0.0]})
    assert detect_alpha(log, {0.9529: 0.25, 1.9057: 0.5, 3.8115: 1.0}[radius], 100_000) == 0.001


def test_a_log_that_has_its_alpha_says_it():
    log = printed_log([80_000, 40_000], 100_000, 0.01, 0.25)  # of which the radii tell nothing
    assert detect_alpha(log.assign(alpha=0.05), 0.25, 100_000) == 0.05
    assert detect_alpha(log.assign(alpha=[0.05, 0.01]), 0.25, 100_000) is None


@pytest.mark.parametrize(
    "again", [lambda log: detect_alpha(log, 0.25, 1000), lambda log: recertify(log, 0.25, 1000, 0.01, 0.1)]
)
def test_without_radii_no_alpha_is_told_or_changed(again, log):
    with pytest.raises(ValueError, match="log has no radius"):
        again(log(PREDICT))


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


@pytest.mark.parametrize(("sigma", "n", "alpha"), [(0.12, 100_000, 0.001), (0.25, 1000, 0.001), (0.25, 100_000, 1e-9),
                                                   (0.25, 5, 0.001)])  # fmt: skip
@pytest.mark.parametrize("rounded", ROUNDED)
def test_a_radius_above_the_largest_possible_is_refused(sigma, n, alpha, rounded):
    log = printed_log([100_000, 60_000], 100_000, 0.001, 0.25, rounded)
    with pytest.raises(ValueError, match=rf"a radius of 0.95\d*, but n = {n} samples .* sigma = {sigma} and"):
        recertify(log, sigma, n, alpha, 0.01)


@pytest.mark.parametrize("rounded", ROUNDED)
@pytest.mark.parametrize(("sigma", "n", "alpha"), [(0.25, 100_000, 0.01), (0.26, 100_000, 0.001)])
def test_a_radius_that_these_numbers_do_not_give_is_refused(sigma, n, alpha, rounded):
    log = printed_log([100_000, 99_999, 99_998], 100_000, 0.001, 0.25, rounded)
    with pytest.raises(ValueError, match=rf"n = {n} samples do not give at sigma = {sigma} and alpha = {alpha}"):
        recertify(log, sigma, n, alpha, 0.01)


@pytest.mark.parametrize("rounded", ROUNDED)
@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("n", [100, 10_000, 100_000])
def test_the_largest_radius_may_be_rounded_up(n, sigma, rounded):
    log = printed_log([n], n, 0.01, sigma, rounded)
    assert recertify(log, sigma, n, 0.01, 0.001)["radius"][0] == pytest.approx(radius(n, n, 0.001, sigma), rel=1e-6)


@pytest.mark.parametrize("counts", [[], [3, 400], [1000]], ids=["no rows", "abstentions", "one"])
def test_small_logs_are_certified_again(counts):
    again = recertify(printed_log(counts, 1000, 0.01, 0.5), 0.5, 1000, 0.01, 0.001)
    assert len(again) == len(counts) and (again["radius"] > 0).tolist() == [count > 500 for count in counts]


def test_abstentions_stay_wrong_and_alpha_follows_when_certified_again():
    log = printed_log([400, 1000], 1000, 0.01, 0.5).assign(label=[ABSTAIN, 1], alpha=0.01, idx=[7, 3])
    again = recertify(log.set_index("idx"), 0.5, 1000, 0.01, 0.001)
    assert again["correct"].tolist() == [False, True] and again["radius"][7] == 0
    assert detect_alpha(again, 0.5, 1000) == 0.001


def test_certifying_again_leaves_the_log_itself_alone():
    log = printed_log([1000, 545], 1000, 0.01, 0.5)
    before = log.copy()
    recertify(log, 0.5, 1000, 0.01, 0.001)
    pd.testing.assert_frame_equal(log, before)
