"""The slides of the talk, twelve for ten minutes, from published tables, records and what the team says of itself."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

from lib import sketches, tables
from lib.bounds import accuracy_interval, certified_radius, lower_confidence_bound
from lib.config.talk import BENCHMARKS, PROFILES, THE_KITS, Talk
from lib.figures import STYLE, accuracy_curves
from lib.figures.style import WIDE, axes_of
from lib.records import read_log
from lib.talk.problem import Attacked

# Samples a second in bfloat16, and of what: docs/speed.md.
RATES = {"cifar10": (89_742, "a ResNet-110 makes on one H200"), "imagenet": (10_530, "a ResNet-50 makes on one H100")}
BASELINES = ("trained on noise (Cohen)", "no denoiser")  # rows of a table that are not the paper's own method
POINTS = 18  # type in figures of 9.6 inches, which a slide of 13.33 inches shows as 25


@dataclass(frozen=True)
class Slide:
    """One slide: what stands on it, what is said (`notes`), and for how many minutes."""

    title: str
    minutes: float
    notes: str
    points: tuple[str, ...] = ()
    figure: Figure | None = None
    alt: str = ""
    table: pd.DataFrame | None = None
    run_id: str = ""


def slides_of(talk: Talk, run: Path | None = None) -> list[Slide]:
    """The slides; their minutes add up to ten. What has no record is said with the command that makes it.

    `run`: the folder of a run of notebook 07, whose attacked image is shown; else runs/digits, else the kit's.
    """
    logs = records_of(talk)
    slides = [*_opening(talk, run), *_paper(talk, logs), *_closing(talk, logs)]
    begin, timed = 0.0, []
    for slide in slides:
        clock = f"[{_clock(begin)} to {_clock(begin + slide.minutes)}] "
        timed.append(replace(slide, notes=clock + slide.notes, figure=_enlarged(slide.figure, slide.run_id)))
        begin += slide.minutes
    return timed


def records_of(talk: Talk) -> dict[str, pd.DataFrame]:
    """The records in the talk's folder that belong to the paper's table, with or without the hash in a file's name.

    Named by their row of it, as in "σ = 0.5"; where one row may have several, also by the noise level: "white-box,
    noise 0.25". Of two with one name the newest counts.
    """
    found: dict[str, pd.DataFrame] = {}
    for path in sorted(talk.folder.glob("**/*.tsv"), key=lambda path: path.stat().st_mtime):
        stem = re.sub(r"-[0-9a-f]{8}$", "", path.stem)
        for row, pattern in _rows(talk).items():
            if fnmatch(stem, pattern):
                log = read_log(path)
                found[row if row.startswith("σ") else f"{row}, noise {log['sigma'].iloc[0]:g}"] = log
    order = list(_rows(talk))
    return dict(sorted(found.items(), key=lambda item: (order.index(_row_of(item[0])), item[0])))


def paper_table(talk: Talk) -> pd.DataFrame:
    """The cells of the paper's table that certify anything: row, radius, certified_accuracy in percent."""
    table = tables.paper_rows(talk.target.table, talk.benchmark)
    return table[table["row"].isin(_rows(talk))]


def targets(talk: Talk, logs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Each cell of the paper's table: paper, ours, 95 % interval and verdict, in percent, or "not run".

    Ours is the best of a row's records at that radius, as the paper's is; a record whose noise and votes could not
    certify that radius at all does not count. The verdict is whether the paper's number lies in our interval; where it
    does not, by how many points ours differs.
    """
    rows = []
    for cell in paper_table(talk).itertuples():
        row = {"row": cell.row, "r": f"{cell.radius:g}", "paper": f"{cell.certified_accuracy:g}"}
        own = [log for name, log in logs.items() if _row_of(name) == cell.row and _ceiling(log) >= cell.radius]
        if not own:
            rows.append(row | {"ours": "not run", "95 % interval": "", "verdict": ""})
            continue
        share, images = max((float(tables.certified_accuracy(log, cell.radius)), len(log)) for log in own)
        low, high = (100 * float(end) for end in accuracy_interval(round(share * images), images))
        apart = 100 * share - cell.certified_accuracy
        verdict = "reached" if low <= cell.certified_accuracy <= high else f"{apart:+.1f} points"
        interval = f"{low:.1f} to {high:.1f}"
        rows.append(row | {"ours": f"{100 * share:.1f}", "95 % interval": interval, "verdict": verdict})
    return pd.DataFrame(rows)


def missing(talk: Talk, logs: Mapping[str, pd.DataFrame]) -> list[str]:
    """The commands that make what the targets lack, each once."""
    command = talk.target.command if talk.command == THE_KITS else talk.command
    command = command.replace("{profile}", PROFILES[talk.benchmark])
    lacking = targets(talk, logs).query("ours == 'not run'")["row"]
    return list(dict.fromkeys(command.replace("{sigma}", row.removeprefix("σ = ")) for row in lacking))


def _ceiling(log: pd.DataFrame) -> float:
    """The radius of an image with all the votes for one class."""
    n, alpha, sigma = int(log["n"].max()), float(log["alpha"].iloc[0]), float(log["sigma"].iloc[0])
    return float(certified_radius(lower_confidence_bound(n, n, alpha), sigma))


def _as_a_grid(table: pd.DataFrame) -> pd.DataFrame:
    """`targets` in the shape of the paper's table, a column a radius; in each cell also interval and verdict."""
    cells = table.assign(cell=["\n".join(_said(row)) for row in table.to_dict("records")], radius=table["r"].map(float))
    grid = cells.pivot(index="row", columns="radius", values="cell").fillna("").loc[list(dict.fromkeys(cells["row"]))]
    return grid.rename(columns="r = {:g}".format).rename_axis(index="paper → ours, %").reset_index()


def _said(target: Mapping[str, str]) -> list[str]:
    if target["ours"] == "not run":
        return [target["paper"], "not run"]
    interval = target["95 % interval"].replace(" to ", "–")
    return [f"{target['paper']} → {target['ours']}", interval, target["verdict"]]


def _rows(talk: Talk) -> dict[str, str]:
    """{row of the paper's table: pattern of the names of its records}."""
    table = tables.published("cohen2019_" + talk.benchmark)
    found: dict[str, str] = {}
    for row, pattern in talk.target.rows.items():
        levels = sorted(set(table["sigma"])) if "{}" in row else [0.0]
        found |= {row.format(f"{sigma:g}"): pattern.format(float(sigma)) for sigma in levels}
    return found


def _row_of(name: str) -> str:
    return re.sub(r", noise [\d.]+$", "", name)


def costs(talk: Talk, logs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Samples an image, and minutes of a GPU for 500 images: as the paper has it, and as each record took."""
    samples = {"the paper, each level": float(talk.target.samples[talk.benchmark])}
    samples |= {f"ours, {name}": float((log["n0"] + log["n"]).mean()) for name, log in logs.items()}
    a_minute = 60 * RATES[talk.benchmark][0]
    rows = [(what, f"{mean:,.0f}", f"{500 * mean / a_minute:.1f}") for what, mean in samples.items()]
    return pd.DataFrame(rows, columns=["what", "samples an image", "minutes for 500 images"])


def _opening(talk: Talk, run: Path | None) -> Iterator[Slide]:
    yield Slide(
        talk.title, 0.5, f"Who we are: {', '.join(talk.members)}. One sentence on why the question matters to us.",
        (talk.course, talk.team, ", ".join(talk.members)),
    )  # fmt: skip
    example, shown = Attacked.of_run(run)
    yield Slide(
        "The problem: a small change turns an answer around", 1.0,
        "Above: a digit, a perturbation enlarged four times, and the digit with it. Below: what a classifier makes of "
        "both. To us it is the same digit. The picture was chosen: the classifier is sure before and after.",
        figure=example.figure(), run_id=shown,
        alt=f"A digit, a perturbation and the digit with it; below, the classifier answers {example.answer('before')} "
        f"before and {example.answer('after')} after.",
    )  # fmt: skip
    yield Slide(
        "What we want: a circle that no change can leave", 0.75,
        "A classifier draws borders through the space of images, and some run close to an image. We want a proof: no "
        "change up to a radius r changes the answer. Here: the circle that noise and votes can certify.",
        figure=sketches.certified_circle(0.6),
        alt="A plane with three classes and a small hole near an image x, noise around x, and the circle that is "
        "certified from its votes.",
    )  # fmt: skip
    broken = tables.published("heuristic_defenses")
    broken = broken.sort_values("accuracy")
    yield Slide(
        "Prior work: nine defenses, and what an attack left", 0.75,
        "Each of these was published with high robust accuracy; Athalye et al. 2018 attacked them again. Adversarial "
        "training is what stood, and it has no proof.",
        figure=_bars(broken["defense"].tolist(), broken["accuracy"].tolist(), "accuracy left, in %"),
        alt="Bars of the accuracy that nine published defenses kept under the attacks of Athalye et al. 2018; most are "
        "below ten percent.",
    )  # fmt: skip
    comparison = tables.published("comparison_imagenet")
    years = dict(comparison[["method", "reference"]].drop_duplicates().itertuples(index=False, name=None))
    yield Slide(
        "Prior work: from attacks to proofs", 0.5,
        "Heuristic defenses fell in 2018. Proofs that scale to ImageNet came a year later, and all of the certified "
        "methods here are randomized smoothing.",
        figure=_time_line({name: int(re.findall(r"\d{4}", said)[0]) for name, said in years.items()}),
        alt="A time line: nine heuristic defenses in 2018, and from 2019 to 2023 the twelve certified methods: "
        f"{', '.join(years)}.",
    )  # fmt: skip
    yield Slide(
        "Prior work: twelve certified methods on ImageNet", 0.75,
        "Certified accuracy in percent at each radius, the best noise level of each; in parentheses the clean accuracy "
        "of that model. Off the shelf: was the classifier trained for this? Nobody is best everywhere.",
        table=_lecture_table(comparison),
    )  # fmt: skip


def _paper(talk: Talk, logs: Mapping[str, pd.DataFrame]) -> Iterator[Slide]:
    said = "Randomized smoothing: g answers what f answers most often on noisy copies of x. If p_A is a lower bound on "
    said += "how often, the radius is σ times the normal quantile of p_A, and no larger radius holds for every f."
    yield Slide("The paper", 1.5, said, (talk.target.title, *talk.target.points, _claim(talk)))
    table, lacking = targets(talk, logs), missing(talk, logs)
    run = str(talk.records)
    number = max((len(log) for log in logs.values()), default=0)
    said = f"Each cell: the paper's number, ours on {talk.data} ({number} images), the 95 % interval of ours, and "
    said += "whether the paper's lies in it."
    commands = (f"not run yet, the first: {lacking[0]}",) if lacking else ()
    yield Slide("Targets: the paper's table, and ours", 1.5, said, commands, table=_as_a_grid(table), run_id=run)
    if logs:
        yield Slide(
            "What we have so far", 1.0, "Lines are ours, with 95 % intervals over the images; points are the paper's.",
            figure=beside_the_paper(talk, logs), run_id=run,
            alt=f"Certified accuracy against the radius: {', '.join(logs)}; points are the paper's numbers.",
        )  # fmt: skip
    else:
        yield Slide("What we have so far", 1.0, "Nothing has been run yet; say when.", commands, run_id=run)


def beside_the_paper(talk: Talk, logs: Mapping[str, pd.DataFrame]) -> Figure:
    """Certified accuracy of the records against the radius, and the paper's cells of their rows as points."""
    title = f"{talk.data}, {max(len(log) for log in logs.values())} images"
    return accuracy_curves(logs, title, paper=(talk.target.table, talk.benchmark))


def _closing(talk: Talk, logs: Mapping[str, pd.DataFrame]) -> Iterator[Slide]:
    said = "One sentence for each line, and what could go wrong."
    yield Slide("How our work differs", 0.75, said, talk.difference)
    rate, what = RATES[talk.benchmark]
    yield Slide(
        "What it costs", 0.5,
        f"Samples over the {rate:,} a second that {what} (docs/speed.md); the paper "
        f"takes {talk.target.samples[talk.benchmark]:,} of each image.",
        table=costs(talk, logs), run_id=talk.records if logs else "",
    )  # fmt: skip
    yield Slide("Next steps", 0.5, "Who does what, and by when.", table=pd.DataFrame(list(talk.tasks)))


def _claim(talk: Talk) -> str:
    """The paper's number at one radius: the best of its own rows there."""
    table = paper_table(talk).query("radius == 0.5 and row not in @BASELINES")
    best = table.loc[table["certified_accuracy"].idxmax()]
    name = BENCHMARKS[talk.benchmark]
    return f"claim: {best.certified_accuracy:g} % of {name} certified at r = 0.5, {best.row}"


def _lecture_table(comparison: pd.DataFrame) -> pd.DataFrame:
    """The lecture's table as it prints it, a row a method, without the references."""
    printed = tables.as_printed(comparison).droplevel("reference").reset_index().fillna("")
    printed.columns = [name.replace("_", " ") if isinstance(name, str) else f"r = {name:g}" for name in printed]
    return printed


def _time_line(methods: Mapping[str, int]) -> Figure:
    """Years from left to right; above each the methods that were published in it, the heuristic defenses in one box."""
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        axes = axes_of("", "")
        height = Counter({2018: 1})
        axes.text(2018, 0.5, "nine heuristic\ndefenses", ha="center", va="center", color="#A03000")
        for name, year in methods.items():
            axes.text(year, height[year] + 0.5, name, ha="center", va="center", color="#005A8C")
            height[year] += 1
        years = range(2018, max(methods.values()) + 1)
        axes.set(xlim=(2017.4, years[-1] + 0.6), ylim=(0, max(height.values()) + 0.3), yticks=[])
        axes.set_xticks(years, map(str, years))
        axes.spines["left"].set_visible(False)
    return axes.figure


def _clock(minutes: float) -> str:
    return f"{int(minutes)}:{round(60 * (minutes % 1)):02d}"


def _bars(names: list[str], values: list[float], xlabel: str) -> Figure:
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        axes = axes_of(xlabel, "")
        axes.barh(names, values, color="#0072B2")
        for place, value in enumerate(values):
            axes.text(value + 0.6, place, f"{value:g}", va="center")
    return axes.figure


def _enlarged(figure: Figure | None, run_id: str) -> Figure | None:
    """The figure at 16:9 with type that a slide needs, and the run's name in its corner."""
    if figure is None:
        return None
    figure.set_size_inches(*WIDE)
    for text in figure.findobj(Text):
        text.set_fontsize(POINTS)
    if run_id:
        figure.get_layout_engine().set(rect=(0, 0.06, 1, 0.94))  # type: ignore[union-attr]  # all have a layout
        figure.text(0.995, 0.005, run_id, ha="right", va="bottom", fontsize=POINTS, color="#595959")
    return figure


def alt_text(slide: Slide) -> str:
    """What stands for a slide's figure, with the run that it comes from."""
    return f"{slide.alt} Run: {slide.run_id}." if slide.run_id else slide.alt
