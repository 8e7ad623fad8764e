"""Accuracies, radii and tables against numbers counted by hand, and the published numbers themselves."""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from processes import PATIENCE

from lib.tables import (
    _IN_LATEX,
    abstention_rate,
    accuracy_table,
    answer_table,
    as_printed,
    average_certified_radius,
    beside_published,
    certified_accuracy,
    envelope,
    paper_rows,
    percent,
    points_of,
    published,
    right_aligned,
    save,
    summary,
    to_latex,
    to_markdown,
)

PUBLISHED = sorted(path.stem for path in (Path(__file__).parents[1] / "results" / "published").glob("*.csv"))


def log(predict: list[int], radius: list[float], label: int = 1) -> pd.DataFrame:
    table = pd.DataFrame({"idx": range(len(predict)), "label": label, "predict": predict, "radius": radius})
    return table.assign(correct=table["predict"] == table["label"], time=1.0)


FIVE = log([1, 1, 1, 2, -1], [0.5, 0.25, 0.0, 0.75, 0.0])  # 3 right, 1 wrong, 1 abstention


def test_certified_accuracy_counts_correct_images_that_reach_the_radius():
    assert certified_accuracy(FIVE, [0, 0.25, 0.3, 0.5, 0.6]).tolist() == [0.6, 0.4, 0.2, 0.2, 0]


def test_certified_accuracy_has_the_shape_of_the_radii():
    assert certified_accuracy(FIVE, 0.25).shape == ()
    assert certified_accuracy(FIVE, [[0.1], [0.2]]).shape == (2, 1)


def test_certified_accuracy_agrees_with_counting_on_random_logs():
    random = np.random.default_rng(0)
    many = log(random.integers(-1, 3, 200).tolist(), random.choice(np.arange(0, 2, 0.25), 200).tolist())
    radii = np.arange(0, 2.5, 0.25)
    counted = [sum(p == 1 and r <= R for p, R in zip(many["predict"], many["radius"])) / 200 for r in radii]
    assert certified_accuracy(many, radii).tolist() == counted


def test_the_average_certified_radius_takes_wrong_images_as_zero():
    assert average_certified_radius(FIVE) == pytest.approx(0.75 / 5)


def test_the_abstention_rate_counts_abstentions_only():
    assert abstention_rate(FIVE) == 0.2


UNLABELLED = log([-1, 2, -1], [0.0, 0.5, 0.0], label=-1)  # here predict == label is abstaining


@pytest.mark.parametrize("correct", [UNLABELLED["correct"], UNLABELLED["correct"].astype(int)], ids=["bool", "int"])
def test_an_abstention_is_never_correct_whatever_label_and_column_say(correct):
    log = UNLABELLED.assign(correct=correct)
    assert certified_accuracy(log, [0, 0.1]).tolist() == [0, 0]
    assert envelope({"a": log}, 0.0)["certified_accuracy"].tolist() == [0]
    assert average_certified_radius(log.assign(radius=0.3)) == 0
    assert abstention_rate(log) == 2 / 3


def test_a_radius_that_was_proved_or_not_is_no_radius():
    with pytest.raises(ValueError, match=r"only whether one was proved; for its one radius r: log.assign"):
        certified_accuracy(FIVE.drop(columns="radius").assign(**{"radius proved": 1}), 0)


@pytest.mark.parametrize("function", [average_certified_radius, lambda log: certified_accuracy(log, 0)])
def test_a_log_without_radii_has_no_certified_accuracy(function):
    with pytest.raises(ValueError, match="log has no radius"):
        function(FIVE.drop(columns="radius"))


@pytest.mark.parametrize("function", [average_certified_radius, abstention_rate])
def test_an_empty_log_has_no_accuracy(function):
    with pytest.raises(ValueError, match="log has no rows"):
        function(FIVE.head(0))


@pytest.mark.parametrize("radii", [-0.1, [0, float("nan")]])
def test_a_radius_that_is_not_at_least_zero_is_refused(radii):
    with pytest.raises(ValueError, match="radii must be >= 0"):
        certified_accuracy(FIVE, radii)


LOGS = {"small": log([1, 1, 1, 1], [0.1, 0.1, 0.1, 0.3]), "large": log([1, 1, 1, 2], [0.3, 0.3, 0.6, 0.6])}


def test_an_accuracy_table_has_a_row_a_log_and_a_column_a_radius():
    expected = pd.DataFrame([[1, 0.25, 0], [0.75, 0.75, 0.25]], ["small", "large"], pd.Index([0.0, 0.3, 0.6]))
    pd.testing.assert_frame_equal(accuracy_table(LOGS, [0, 0.3, 0.6]), expected, check_names=False)


def test_a_summary_adds_the_mean_radius_and_the_abstentions():
    row = summary({"five": FIVE}, [0, 0.5]).loc["five"]
    assert row.index.tolist() == [0.0, 0.5, "ACR", "abstained"]
    assert row.tolist() == pytest.approx([0.6, 0.2, 0.15, 0.2])


def test_answers_are_right_wrong_or_abstentions():
    answers = answer_table({10: np.array([-1, -1, -1, -1]), 100: np.array([0, 1, 2, -1])}, np.array([0, 1, 1, 1]))
    assert answers.loc[10].tolist() == [0, 0, 1] and answers.loc[100].tolist() == [0.5, 0.25, 0.25]


def test_a_run_stands_above_the_papers_own_tables():
    table = beside_published("ours", LOGS, [0, 0.3], "cohen2019")
    assert list(dict.fromkeys(table.index.get_level_values(0))) == [
        "ours",
        "cifar10, Cohen et al.",
        "imagenet, Cohen et al.",
    ]
    assert table.loc[("ours", "large"), 0.3] == 0.75 and table.loc[("cifar10, Cohen et al.", "σ = 0.25"), 0.0] == 0.77
    assert np.isnan(table.loc[("imagenet, Cohen et al.", "σ = 0.25"), 0.25])


def test_the_envelope_takes_the_best_log_at_each_radius_and_tells_which():
    best = envelope(LOGS, [0, 0.3, 0.6])
    assert best["log"].tolist() == ["small", "large", "large"]
    assert best["clean_accuracy"].tolist() == [1, 0.75, 0.75]
    assert best["certified_accuracy"].tolist() == [1, 0.75, 0.25]


def test_no_log_wins_the_envelope_where_nothing_is_certified():
    best = envelope(LOGS, [0.6, 5.0])
    assert best["log"].isna().tolist() == [False, True]
    assert best["clean_accuracy"].isna().tolist() == [False, True]
    assert best["certified_accuracy"].tolist() == [0.25, 0]


def test_percents_are_rounded_to_nearest():
    assert (percent(0.71549), percent(0)) == ("71.5", "0.0")


TABLE = pd.DataFrame({"method": ["a|b", "50% & more"], "radius": [0.2501, 0.5], "certified_accuracy": [2 / 3, None]})
FORMATS = {"radius": "{:.3f}".format, "certified_accuracy": percent}


def test_markdown_has_a_row_a_line_and_a_dash_for_what_is_missing():
    assert to_markdown(TABLE, FORMATS).splitlines() == [
        "| method | radius | certified_accuracy |",
        "| --- | ---: | ---: |",
        "| a\\|b | 0.250 | 66.7 |",
        "| 50% & more | 0.500 | – |",
    ]


def test_an_index_that_names_its_rows_is_the_first_column():
    lines = to_markdown(accuracy_table(LOGS, [0, 0.25]), percent).splitlines()
    assert lines[0] == "|  | 0 | 0.25 |" and lines[2] == "| small | 100.0 | 25.0 |"


def test_latex_escapes_what_latex_would_read_as_its_own():
    text = to_latex(TABLE, FORMATS)
    assert r"50\% \& more & 0.500 & – \\" in text and r"certified\_accuracy" in text and r"\toprule" in text


def test_save_writes_all_digits_as_csv_and_the_printed_ones_for_word_as_markdown_and_as_latex(tmp_path):
    paths = save(TABLE, tmp_path / "tables" / "sigma_0.25", FORMATS)
    assert [path.name for path in paths] == [f"sigma_0.25.{kind}" for kind in ("csv", "word.csv", "md", "tex")]
    pd.testing.assert_frame_equal(pd.read_csv(paths[0]), TABLE)
    assert paths[1].read_bytes().startswith(b"\xef\xbb\xbf"), "without the mark Word and Excel take it for another code"
    assert pd.read_csv(paths[1], dtype=str).to_numpy().tolist() == [
        ["a|b", "0.250", "66.7"],
        ["50% & more", "0.500", "–"],
    ]
    assert paths[2].read_text() == to_markdown(TABLE, FORMATS)
    assert paths[3].read_text() == to_latex(TABLE, FORMATS)


def test_without_formats_fractions_are_percents_with_one_decimal_and_other_numbers_are_not():
    table = summary({"five": FIVE}, [0, 0.5]).reset_index(names="method").assign(seconds=12.5)
    last = to_markdown(table).splitlines()[-1]
    assert last == "| five | 60.0 | 20.0 | 0.150 | 20.0 | 12.5 |"
    assert to_markdown(table.rename(columns={0.5: "r = 0.5"})).splitlines()[-1] == last


def test_columns_of_numbers_are_aligned_to_the_right_everywhere():
    table = as_printed(published("comparison_imagenet")).reset_index()
    texts = {"method", "reference", "off_the_shelf", "extra_data"}
    assert right_aligned(table.fillna("–")) == [column not in texts for column in table]
    assert right_aligned(pd.DataFrame({"a": ["01_train", "02_Stab"], "b": ["83 → 82.6", "(5) 4"]})) == [False, True]
    assert "{llllrrrrr}" in to_latex(table) and "| --- | --- | --- | --- | ---: |" in to_markdown(table)


PRINTED = {name: published(name) for name in PUBLISHED}
PRINTED |= {
    f"{name}, as printed": as_printed(table).reset_index() for name, table in PRINTED.items() if "comparison" in name
}
PRINTED["every sign"] = pd.DataFrame({f"a_{sign}": [f"{sign} & 50 %"] for sign in _IN_LATEX})
PRINTED["levels"] = summary({"σ = 0.5": FIVE, "$p_B$ = 1 - $p_A$": FIVE}, [0, 0.5])


@pytest.mark.parametrize("name", PRINTED)
def test_latex_compiles(name, tmp_path):
    engine = next(filter(shutil.which, ("pdflatex", "xelatex", "lualatex")), None)
    if not engine:
        pytest.skip("needs LaTeX: pdflatex, xelatex or lualatex")
    head = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\tiny\n"
    # A long table is as many pages as it needs rows: the first forty have every sign that there is.
    (tmp_path / "table.tex").write_text(
        f"{head}{to_latex(PRINTED[name].head(40))}\\end{{document}}\n", encoding="utf-8"
    )
    words = [engine, "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=PATIENCE)
    assert done.returncode == 0, done.stdout[-1500:]
    assert "Missing character" not in (tmp_path / "table.log").read_text(errors="replace")


def test_the_index_is_kept_in_the_csv_where_it_names_the_rows(tmp_path):
    csv = save(accuracy_table(LOGS, [0, 0.25]), tmp_path / "table")[0].read_text()
    assert pd.read_csv(io.StringIO(csv), index_col=0).index.tolist() == ["small", "large"]


# --- published numbers -----------------------------------------------------------------------------


TABLES = [
    name.rsplit("_", 1) for name in PUBLISHED if name.rsplit("_", 1)[0] in ("cohen2019", "salman2020", "comparison")
]
TABLES = [(paper, data) for paper, data in TABLES if data in ("cifar10", "imagenet")]


@pytest.mark.parametrize(("paper", "data"), TABLES)
def test_the_points_beside_a_curve_are_the_cells_of_its_row_and_every_row_finds_its_curve(paper, data):
    rows, table = paper_rows(paper, data), published(f"{paper}_{data}")
    assert len(rows) and not rows.duplicated(["row", "radius"]).any() and (rows["certified_accuracy"] > 0).all()
    for row in set(rows["row"]):
        points = points_of([f"{row}, K = 2", "another", row], paper, data)
        assert list(points) == [row], "of several curves the last"
        where = table["sigma"] == float(row[4:]) if paper == "cohen2019" else table["method"] == row
        if "classifier" in table:
            where &= table["classifier"] == table["classifier"].iloc[0]
        cells = table[where & (table["certified_accuracy"] > 0)]
        kept = ["radius", "certified_accuracy"]
        assert points[row][kept].to_numpy().tolist() == cells[kept].to_numpy().tolist()


NAMED = {  # what the curves of notebooks 01 to 03 are called, and the rows that they have points of
    ("cohen2019", "cifar10"): {"σ = 0.25": "σ = 0.25", "σ = 1.0": "σ = 1", "trained at σ = 0.5": ""},
    ("salman2020", "cifar10"): {"Stab": "white-box", "Stab+MSE": "", "MSE": "", "no denoiser": "no denoiser"},
    ("salman2020", "imagenet"): {"Stab": "", "Stab+MSE": "white-box", "trained on noise": "trained on noise (Cohen)"},
    ("comparison", "imagenet"): {
        "one-step diffusion": "Diffusion",
        "Stab+MSE denoiser": "Denoised",
        "MSE denoiser": "",
    },
    ("comparison", "cifar10"): {"trained on noise": "RS", "Diffusion, fine-tuned": "Diffusion, fine-tuned"},
}


@pytest.mark.parametrize(("paper", "data"), TABLES)
def test_curves_of_notebooks_have_points_by_the_names_that_notebooks_give_them(paper, data):
    for name, row in NAMED.get((paper, data), {}).items():
        assert [set(cells["row"]) for cells in points_of([name], paper, data).values()] == ([{row}] if row else []), (
            name
        )


@pytest.mark.parametrize("data", ["digits", "folder", "photographs"])
@pytest.mark.parametrize("paper", sorted({paper for paper, _ in TABLES}))
def test_data_without_a_table_has_no_points(paper, data):
    assert paper_rows(paper, data).empty and points_of(["σ = 0.5", "white-box", "RS"], paper, data) == {}


def test_a_paper_without_a_table_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match=r"salman2020_imagenet.*got 'salman_"):
        paper_rows("salman", "digits")


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match=r"cohen2019_cifar10.*got 'cohen2020'"):
        published("cohen2020")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_table_names_its_source_and_holds_percents(name):
    text = (Path(__file__).parents[1] / "results" / "published" / f"{name}.csv").read_text()
    comments = "".join(line for line in text.split("\n") if line.startswith("#"))
    assert any(source in comments for source in ("arXiv", "github.com", "the repositories of"))
    accuracies = published(name).filter(regex="accuracy|abstain").stack().dropna()
    assert accuracies.between(0, 100).all() and accuracies.max() > 1.5  # percent, not fractions


@pytest.mark.parametrize("name", [name for name in PUBLISHED if "radius" in published(name)])
def test_a_published_table_has_a_row_a_number_and_no_accuracy_grows_with_the_radius(name):
    table = published(name)
    numbers = {"radius", "certified_accuracy", "recertified_accuracy", "clean_accuracy", "abstain"}
    model = [column for column in table if column not in numbers]
    assert not table.duplicated([*model, "radius"]).any()
    curves = table.sort_values("radius", kind="stable").groupby(model, dropna=False)["certified_accuracy"]
    assert curves.apply(lambda curve: curve.is_monotonic_decreasing).all()


def cell(name: str, column: str = "certified_accuracy", **where: object) -> float:
    table = published(name)
    for key, value in where.items():
        table = table[table[key] == value]
    (value,) = table[column]
    return float(value)


def test_the_published_tables_hold_the_numbers_that_the_papers_are_known_by():
    assert cell("cohen2019_imagenet", sigma=0.25, radius=0.5) == 49
    assert cell("cohen2019_cifar10", sigma=1.0, radius=1.5) == 14
    assert cell("salman2020_imagenet", classifier="ResNet-50", method="white-box", radius=0.25) == 50
    assert cell("salman2020_cifar10", "clean_accuracy", method="black-box", radius=0.25) == 81
    assert cell("comparison_imagenet", method="Diffusion", radius=0.5) == 71.1
    assert cell("training_methods_cifar10", method="CAT-RS", sigma=0.5, radius=1.0) == 38.5
    assert cell("heuristic_defenses", "accuracy", defense="Madry et al. 2018") == 47


def test_twelve_methods_are_compared_on_imagenet():
    table = published("comparison_imagenet")
    assert table["method"].nunique() == 12 and set(table["off_the_shelf"]) == {"no", "half", "yes"}


def test_the_rows_on_cifar10_that_come_from_logs_are_those_logs_best_noise_level():
    table, logs = published("comparison_cifar10"), published("training_methods_cifar10")
    best = logs.groupby(["method", "radius"])["certified_accuracy"].max()
    names = {"Adaptive training": "ACRW"}
    rows = table[table["source"] == "logs"]
    assert set(rows["method"]) == {"CAT-RS", "Adaptive training"}
    for row in rows.itertuples():
        assert row.certified_accuracy == best[names.get(row.method, row.method), row.radius]


def test_the_rows_on_cifar10_agree_with_the_other_tables_that_print_them():
    table = published("comparison_cifar10").set_index(["method", "radius"])["certified_accuracy"]
    adv = published("smoothadv2019").query("dataset == 'cifar10'").set_index(["method", "radius"])["certified_accuracy"]
    leaders = published("deterministic").query("data == 'CIFAR-10' and kind == 'smoothing'")
    leaders = leaders.set_index(["method", "radius"])["certified_accuracy"]
    for radius in (0.25, 0.5, 0.75, 1.0):
        assert table["RS", radius] == adv["Cohen", radius] and table["SmoothAdv", radius] == adv["SmoothAdv", radius]
    assert table["Diffusion, fine-tuned", 0.25] == leaders["Diffusion, fine-tuned", 0.25]


def test_a_comparison_is_printed_as_the_papers_do_with_the_clean_accuracy_in_parentheses():
    table = as_printed(published("comparison_imagenet")).reset_index(["reference", "off_the_shelf", "extra_data"])
    assert table.loc["Diffusion"].tolist()[:5] == ["Carlini et al. 2023", "yes", "yes", "(82.8) 71.1", "(77.1) 54.3"]
    assert table.loc["Lee", 0.5] == "41.0" and pd.isna(table.loc["Lee", 2.0])
    assert table.index[[0, -1]].tolist() == ["PixelDP", "Diffusion"]
