"""The talk: what talk.yaml may say, ten minutes, targets that are computed, and a deck that opens anywhere."""

import dataclasses
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from in_browser import Page, browser
from matplotlib.text import Text
from PIL import Image
from processes import PATIENCE
from recommended import ROOT

from lib import tables
from lib.config import Presenting
from lib.config.talk import BENCHMARKS, PAPERS
from lib.figures.publishing import png_of
from lib.records import read_log
from lib.run import arguments
from lib.runner.inputs import check_inputs, fingerprint
from lib.runner.jobs import notebook_path, plan_one
from lib.talk import Talk, as_html, as_pptx, load_talk, slides_of
from lib.talk.problem import Attacked
from lib.talk.slides import _rows, alt_text, costs, missing, records_of, targets

FIELDS = [field.name for field in dataclasses.fields(Talk)]
LISTS = [field.name for field in dataclasses.fields(Talk) if not isinstance(field.default, str)]


@pytest.fixture(scope="module")
def slides():
    return slides_of(Talk())


@pytest.fixture(scope="module")
def deck(tmp_path_factory, slides) -> Path:
    path = tmp_path_factory.mktemp("talk") / "deck.html"
    path.write_text(as_html(slides, "A talk"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


# ---- what the team says ----------------------------------------------------------------------------------------


def test_the_example_file_says_the_defaults_all_of_them():
    assert load_talk(ROOT / "docs/talk.yaml") == Talk()
    assert list(yaml.safe_load((ROOT / "docs/talk.yaml").read_text(encoding="utf-8"))) == FIELDS


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [None, 3, "", [], [3], {"a": "b"}, "two\nlines"])
def test_a_wrong_value_is_refused_by_its_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name}"):
        Talk(**{name: value})


def test_an_unknown_line_is_refused_with_the_one_that_was_meant(tmp_path):
    (tmp_path / "talk.yaml").write_text("titel: Mine")
    with pytest.raises(ValueError, match=r"unknown line of talk.yaml: 'titel'; did you mean 'title'\?"):
        load_talk(tmp_path / "talk.yaml")
    with pytest.raises(ValueError, match=r"unknown part of tasks\[0\]: 'whom'; did you mean 'who'\?"):
        Talk(tasks=({"what": "a", "whom": "b", "by": "c"},))


@pytest.mark.parametrize("text", ["- a\n- b", "just text", "title: [unclosed"])
def test_a_file_of_another_form_is_refused(text, tmp_path):
    (tmp_path / "talk.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"talk\.yaml"):
        load_talk(tmp_path / "talk.yaml")


# ---- the slides ------------------------------------------------------------------------------------------------


def test_twelve_slides_take_ten_minutes_and_each_says_from_when_to_when(slides):
    assert len(slides) == 12 and sum(slide.minutes for slide in slides) == 10
    spans = [re.match(r"\[(\d+:\d\d) to (\d+:\d\d)\] \S", slide.notes).groups() for slide in slides]
    assert spans[0][0] == "0:00" and spans[-1][1] == "10:00"
    assert [end for _, end in spans[:-1]] == [begin for begin, _ in spans[1:]]


def test_what_the_team_says_stands_on_a_slide(slides):
    talk = Talk()
    said = " ".join([slide.title + " ".join(slide.points) for slide in slides])
    assert all(text in said for text in (talk.title, talk.course, talk.team, *talk.members, *talk.difference))
    assert slides[-1].table.to_dict("records") == list(talk.tasks)


def test_every_cell_of_the_papers_table_is_a_target_with_what_the_record_says():
    talk = Talk()
    logs = records_of(talk)
    table = targets(talk, logs)
    paper = tables.published("cohen2019_cifar10").query("certified_accuracy > 0")
    assert len(table) == len(paper) and set(table["verdict"]) > {"reached"}
    for row in table.to_dict("records"):
        sigma = float(row["row"].removeprefix("σ = "))
        log = read_log(ROOT / f"results/cifar10_fast/01_train_{sigma}-test_{sigma}.tsv")
        reached = ((log["radius"] >= float(row["r"])) & (log["predict"] == log["label"])).mean()
        assert float(row["ours"]) == pytest.approx(100 * reached, abs=0.051)
        low, high = map(float, row["95 % interval"].split(" to "))
        if min(abs(low - float(row["paper"])), abs(high - float(row["paper"]))) > 0.05:  # the ends are rounded
            assert (row["verdict"] == "reached") == (low <= float(row["paper"]) <= high)


def test_a_missing_record_gives_its_command_and_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    (tmp_path / "mine").mkdir()
    nothing = Talk(records="mine", command="run {sigma}")
    assert missing(nothing, records_of(nothing)) == ["run 0.12", "run 0.25", "run 0.5", "run 1"]
    assert set(targets(nothing, {})["ours"]) == {"not run"} and len(slides_of(nothing)) == 12
    for suffix in (".tsv", ".json"):
        shutil.copy(ROOT / f"results/cifar10_fast/01_train_0.25-test_0.25{suffix}",
                    tmp_path / f"mine/01_train_0.25-test_0.25-0123abcd{suffix}")  # fmt: skip
    assert missing(nothing, records_of(nothing)) == ["run 0.12", "run 0.5", "run 1"]
    assert (targets(nothing, records_of(nothing))["ours"] == "not run").sum() == 16
    assert len(slides_of(nothing)) == 12


def test_records_of_other_noise_than_that_of_training_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    for name in ("01_train_0.5-test_0.25.tsv", "01_two_class_1.0.tsv", "note.txt"):
        (tmp_path / name).write_text("not read")
    assert records_of(Talk(records=".")) == {}


def test_the_claim_is_the_best_cell_of_the_papers_own_table():
    said = {name: slides_of(Talk(benchmark=name, records="nowhere"))[6].points[-1] for name in ("cifar10", "imagenet")}
    for name, claim in said.items():
        table = tables.published(f"cohen2019_{name}").query("radius == 0.5").set_index("sigma")["certified_accuracy"]
        share, sigma = re.search(r"(\d+) % .* σ = ([\d.]+)", claim).groups()
        assert table[float(sigma)] == float(share) == table.max()
    own = slides_of(Talk(paper="salman2020", records="nowhere"))[6].points[-1]
    assert own == "claim: 41 % of CIFAR-10 certified at r = 0.5, white-box", "not the baseline's 45 %"


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_paper_has_a_table_on_either_benchmark_whose_rows_records_can_fill(paper, benchmark):
    talk = Talk(paper=paper, benchmark=benchmark, records="nowhere")
    table = targets(talk, {})
    assert len(table) and set(table["ours"]) == {"not run"} and len(slides_of(talk)) == 12
    assert set(table["row"]) <= set(_rows(talk))
    commands = missing(talk, {})
    for command in commands:
        options = arguments(shlex.split(command)[3:])
        (job,) = [plan_one(notebook_path(name), options.profile, options.settings) for name in options.notebooks]
        assert job.config.dataset == benchmark
    assert commands and talk.target.title in slides_of(talk)[6].points


def test_of_a_papers_row_the_best_record_at_a_radius_is_held_against_its_cell(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    source = ROOT / "results/cifar10_fast"
    for name in ("02_Stab_0.25", "02_Stab+MSE_0.25", "02_no_denoiser_0.25", "02_MSE_0.25"):
        shutil.copy(source / f"{name}.tsv", tmp_path / f"{name}-0123abcd.tsv")
    talk = Talk(paper="salman2020", records=".")
    logs = records_of(talk)
    assert list(logs) == ["no denoiser, noise 0.25", "white-box, noise 0.25"]  # MSE is no row of the paper's table
    table = targets(talk, logs).set_index(["row", "r"])
    assert table.loc[("black-box", "0.25"), "ours"] == "not run" and len(missing(talk, logs)) == 1
    reach = table.loc["white-box", "ours"] != "not run"
    assert reach[["0.25", "0.5"]].all() and not reach[["0.75", "1", "1.25", "1.5"]].any(), "0.62 at most, at σ = 0.25"
    assert float(table.loc[("no denoiser", "0.25"), "paper"]) == 7


def test_the_lectures_table_is_whole_and_no_method_is_off_the_time_line(slides):
    table = slides[5].table
    assert len(table) == 12 and "(82.8) 71.1" in table["r = 0.5"].to_list()
    shown = " ".join(text.get_text() for text in slides[4].figure.findobj(Text))
    assert all(method in shown for method in table["method"]) and "2018" in shown and "2023" in shown


def test_the_attacked_image_is_your_own_runs_where_it_has_one(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    example, run = Attacked.of_run()
    assert run == "results/digits" and example.answer("before") != example.answer("after")
    assert example.classes[example.label] == example.answer("before")
    mine = dataclasses.replace(example, title="mine")
    assert mine.save(tmp_path / "runs/digits").exists()
    again, run = Attacked.of_run()
    assert run == "runs/digits" and again == mine
    other = dataclasses.replace(example, title="another")
    other.save(tmp_path / "runs/stronger")
    assert Attacked.of_run(tmp_path / "runs/stronger") == (other, "runs/stronger")
    assert slides_of(Talk(), tmp_path / "runs/stronger")[1].run_id == "runs/stronger"


def test_of_two_records_of_one_level_the_newest_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    for age, (level, name) in enumerate([("0.5", "aaaaaaaa"), ("0.25", "bbbbbbbb")]):
        target = tmp_path / f"01_train_0.5-test_0.5-{name}.tsv"
        shutil.copy(ROOT / f"results/cifar10_fast/01_train_{level}-test_{level}.tsv", target)
        os.utime(target, (1000 - age, 1000 - age))
    assert (records_of(Talk(records="."))["σ = 0.5"]["sigma"] == 0.5).all()


def test_costs_are_the_records_samples():
    log = pd.DataFrame({"n0": [100, 100], "n": [500, 1500]})
    table = costs(Talk(), {"σ = 0.5": log})
    assert table["samples an image"].tolist() == ["100,100", "1,100"]


def test_pictures_are_wide_with_large_type_and_carry_their_run(slides):
    drawn = [slide for slide in slides if slide.figure is not None]
    assert len(drawn) == 5 and any(slide.run_id for slide in drawn)
    for slide in drawn:
        width, height = slide.figure.get_size_inches()
        shown = [text for text in slide.figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert width / height == pytest.approx(16 / 9) and shown
        assert min(text.get_fontsize() for text in shown) * 13.33 / width >= 24
        picture = Image.open(io.BytesIO(png_of(slide.figure, alt_text(slide), slide.run_id)))
        assert picture.text["Source"] == slide.run_id and picture.text["Description"] == alt_text(slide)
        assert len(slide.alt.split()) > 5
        if slide.run_id:
            assert slide.run_id in [text.get_text() for text in shown]


# ---- PowerPoint ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("records", ["results/cifar10_fast", "nowhere"])
@pytest.mark.parametrize("paper", PAPERS)
def test_the_powerpoint_file_has_native_text_tables_pictures_with_words_and_notes(paper, records):
    slides = slides_of(Talk(paper=paper, records=records))
    pptx = pytest.importorskip("pptx", reason="needs python-pptx, of the extra talk")
    deck = pptx.Presentation(io.BytesIO(as_pptx(slides)))
    assert len(deck.slides) == len(slides)
    for page, slide in zip(deck.slides, slides):
        assert page.shapes.title.text == slide.title
        assert page.notes_slide.notes_text_frame.text == slide.notes
        kinds = [shape for shape in page.shapes if shape.has_table]
        assert bool(kinds) == (slide.table is not None)
        words = " ".join(shape.text_frame.text for shape in page.shapes if shape.has_text_frame)
        assert all(point in words for point in slide.points)
        pictures = [shape for shape in page.shapes if shape.shape_type == 13]
        assert len(pictures) == (slide.figure is not None)
        assert all(shape._element.nvPicPr.cNvPr.get("descr") == alt_text(slide) for shape in pictures)
        for grid in kinds:
            assert sum(column.width for column in grid.table.columns) <= deck.slide_width
            sizes = [
                p.font.size.pt for row in grid.table.rows for cell in row.cells for p in cell.text_frame.paragraphs
            ]
            assert min(sizes) >= 18
        for shape in page.shapes:
            assert shape.left >= 0 and shape.width > 0 and shape.left + shape.width <= deck.slide_width
            assert shape.top >= 0 and shape.height > 0 and shape.top + shape.height <= deck.slide_height


def test_libreoffice_opens_it(slides, tmp_path):
    office = shutil.which("soffice") or shutil.which("libreoffice")
    if not office:
        pytest.skip("needs LibreOffice")
    (tmp_path / "deck.pptx").write_bytes(as_pptx(slides))
    words = [office, "--headless", "--convert-to", "pdf", "--outdir", str(tmp_path), str(tmp_path / "deck.pptx")]
    subprocess.run(words, check=True, capture_output=True, timeout=PATIENCE)
    assert (tmp_path / "deck.pdf").read_bytes().startswith(b"%PDF")


# ---- the deck in a browser -------------------------------------------------------------------------------------


def test_the_deck_names_no_address_of_the_web(deck):
    text = re.sub(r"<script>.*?</script>|<style>.*?</style>", "", deck.read_text(encoding="utf-8"), flags=re.S)
    assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]*"', text) == []


@pytest.mark.parametrize("records", ["results/cifar10_fast", "nowhere"])
@pytest.mark.parametrize("paper", PAPERS)
def test_the_deck_asks_for_nothing_says_no_error_and_every_slide_fits_its_frame(paper, records, chromium, tmp_path):
    slides, deck = slides_of(Talk(paper=paper, records=records)), tmp_path / "deck.html"
    deck.write_text(as_html(slides, "A talk"), encoding="utf-8")
    page = Page(chromium, deck, 1280)
    page.page.wait_for_function("window.Reveal && Reveal.isReady()")
    assert page.page.evaluate("Reveal.getTotalSlides()") == len(slides)
    for number, slide in enumerate(slides):
        page.page.evaluate(f"Reveal.slide({number})")
        assert page.page.evaluate("Reveal.getCurrentSlide().querySelector('h2').textContent") == slide.title
        hidden = page.page.evaluate(
            """() => { const slide = Reveal.getCurrentSlide(), frame = slide.getBoundingClientRect();
            return [...slide.querySelectorAll('h2, li, table, svg, p')].filter(e => {
              const box = e.getBoundingClientRect();
              return box.right > frame.right + 1 || box.bottom > frame.bottom + 1 || box.left < frame.left - 1;
            }).map(e => e.tagName + ' ' + e.textContent.slice(0, 30)); }"""
        )
        assert hidden == [], slide.title
    assert page.asked == [] and page.errors == []


@pytest.mark.parametrize("width", [390, 1400])
def test_the_deck_is_no_wider_than_its_window_and_axe_finds_nothing(width, deck, chromium):
    page = Page(chromium, deck, width)
    page.page.wait_for_function("window.Reveal && Reveal.isReady()")
    assert page.overflow() <= 0
    for number in range(12):
        page.page.evaluate(f"Reveal.slide({number})")
        page.page.wait_for_timeout(100)
        assert page.violations() == {}


# ---- the command -----------------------------------------------------------------------------------------------


def test_the_command_writes_the_deck_and_the_same_one_again(tmp_path):
    words = [sys.executable, "-m", "lib.talk", str(ROOT / "docs/talk.yaml"), "--out", str(tmp_path / "out")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = [Path(line) for line in done.stdout.splitlines()]
    assert [path.name for path in written[:2]] == ["deck.html", "deck.pptx"] and all(path.exists() for path in written)
    first = written[0].read_bytes()
    subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
    assert written[0].read_bytes() == first


def test_a_wrong_file_is_one_line_and_nothing_is_written(tmp_path):
    (tmp_path / "talk.yaml").write_text("paper: nobody2020")
    words = [sys.executable, "-m", "lib.talk", str(tmp_path / "talk.yaml"), "--out", str(tmp_path / "out")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "must be one of cohen2019" in done.stderr
    assert not (tmp_path / "out").exists()


# ---- notebook 07 -----------------------------------------------------------------------------------------------


def test_a_wrong_talk_is_refused_before_the_notebook_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("paper: nobody2020")
    with pytest.raises(ValueError, match="must be one of cohen2019"):
        check_inputs(Presenting(talk="mine.yaml"))
    with pytest.raises(ValueError, match=r"talk = 'yours.yaml': no file"):
        check_inputs(Presenting(talk="yours.yaml"))


def test_the_notebook_is_run_again_where_the_talk_or_a_record_has_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine.yaml").write_text("records: mine")
    found = [fingerprint(Presenting(talk="mine.yaml"), "")]
    (tmp_path / "mine/01_train_0.5-test_0.5.tsv").write_text("a record")
    found.append(fingerprint(Presenting(talk="mine.yaml"), ""))
    (tmp_path / "mine.yaml").write_text("records: mine\ntitle: Another")
    found.append(fingerprint(Presenting(talk="mine.yaml"), ""))
    assert found[0] != found[1] != found[2]
