"""The slides of the talk, ten for ten minutes, from published tables, records and what the team says of itself."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

from lib import sketches, tables
from lib.bounds import accuracy_interval
from lib.config.talk import BENCHMARKS, PAPERS, Talk
from lib.figures import STYLE, accuracy_curves, lines
from lib.figures.style import WIDE, axes_of
from lib.records import read_log

# Samples a second in bfloat16, and of what: docs/speed.md.
RATES = {"cifar10": (89_742, "a ResNet-110 makes on one H200"), "imagenet": (10_530, "a ResNet-50 makes on one H100")}
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


def slides_of(talk: Talk) -> list[Slide]:
    """The ten slides; their minutes add up to ten. What has no record is said with the command that makes it."""
    logs = records_of(talk)
    slides = [*_opening(talk), *_paper(talk, logs), *_closing(talk, logs)]
    begin, timed = 0.0, []
    for slide in slides:
        clock = f"[{_clock(begin)} to {_clock(begin + slide.minutes)}] "
        timed.append(replace(slide, notes=clock + slide.notes, figure=_enlarged(slide.figure, slide.run_id)))
        begin += slide.minutes
    return timed


def records_of(talk: Talk) -> dict[float, pd.DataFrame]:
    """{noise level: record} of notebook 01 in the talk's folder, with or without the hash in a file's name.

    Of several for one level the newest counts.
    """
    found: dict[float, pd.DataFrame] = {}
    for path in sorted(talk.folder.glob("**/01_train_*-test_*.tsv"), key=lambda path: path.stat().st_mtime):
        trained, tested = path.name.removeprefix("01_train_").removesuffix(".tsv").split("-test_")
        if trained == tested.split("-")[0]:
            found[float(trained)] = read_log(path)
    return dict(sorted(found.items()))


def targets(talk: Talk, logs: dict[float, pd.DataFrame]) -> pd.DataFrame:
    """Each cell of the paper's table: paper, ours, 95 % interval and verdict, in percent, or "not run".

    The verdict is whether the paper's number lies in our interval; where it does not, by how many points ours differs.
    """
    rows = []
    paper = tables.published(f"{talk.paper}_{talk.benchmark}").query("certified_accuracy > 0")
    for cell in paper.itertuples():
        row = {"σ": f"{cell.sigma:g}", "r": f"{cell.radius:g}", "paper": f"{cell.certified_accuracy:.0f}"}
        log = logs.get(cell.sigma)
        if log is None:
            rows.append(row | {"ours": "not run", "95 % interval": "", "verdict": ""})
            continue
        share = float(tables.certified_accuracy(log, cell.radius))
        low, high = (100 * float(end) for end in accuracy_interval(round(share * len(log)), len(log)))
        apart = 100 * share - cell.certified_accuracy
        verdict = "reached" if low <= cell.certified_accuracy <= high else f"{apart:+.1f} points"
        interval = f"{low:.1f} to {high:.1f}"
        rows.append(row | {"ours": f"{100 * share:.1f}", "95 % interval": interval, "verdict": verdict})
    return pd.DataFrame(rows)


def missing(talk: Talk, logs: dict[float, pd.DataFrame]) -> list[str]:
    """The commands that make what the targets lack."""
    wanted = sorted({float(sigma) for sigma in tables.published(f"{talk.paper}_{talk.benchmark}")["sigma"]})
    return [talk.command.replace("{sigma}", f"{sigma:g}") for sigma in wanted if sigma not in logs]


def costs(talk: Talk, logs: dict[float, pd.DataFrame]) -> pd.DataFrame:
    """Samples an image, and minutes of a GPU for 500 images: as the paper has it, and as each record took."""
    samples = {"the paper, each level": 100_100.0}
    samples |= {f"ours, σ = {sigma:g}": float((log["n0"] + log["n"]).mean()) for sigma, log in logs.items()}
    a_minute = 60 * RATES[talk.benchmark][0]
    rows = [(what, f"{mean:,.0f}", f"{500 * mean / a_minute:.1f}") for what, mean in samples.items()]
    return pd.DataFrame(rows, columns=["what", "samples an image", "minutes for 500 images"])


def _opening(talk: Talk) -> Iterator[Slide]:
    yield Slide(
        talk.title, 0.5, f"Who we are: {', '.join(talk.members)}. One sentence on why the question matters to us.",
        (talk.course, talk.team, ", ".join(talk.members)),
    )  # fmt: skip
    yield Slide(
        "The problem: a small change turns an answer around", 1.5,
        "A classifier draws borders through the space of images, and some run close to an image. Empirical defenses "
        "were broken, so we want a proof: no change up to a radius r changes the answer. Right: the circle that noise "
        "and votes can certify.",
        figure=sketches.certified_circle(0.6),
        alt="A plane with three classes and a small hole near an image x, noise around x, and the circle that is "
        "certified from its votes.",
    )  # fmt: skip
    broken = tables.published("heuristic_defenses")
    broken = broken.sort_values("accuracy")
    yield Slide(
        "Prior work: nine defenses, and what an attack left", 1.0,
        "Each of these was published with high robust accuracy; Athalye et al. 2018 attacked them again. Adversarial "
        "training is what stood, and it has no proof.",
        figure=_bars(broken["defense"].tolist(), broken["accuracy"].tolist(), "accuracy left, in %"),
        alt="Bars of the accuracy that nine published defenses kept under the attacks of Athalye et al. 2018; most are "
        "below ten percent.",
    )  # fmt: skip
    comparison = tables.published("comparison_imagenet")
    wide = comparison.pivot(index="radius", columns="method", values="certified_accuracy") / 100
    best = wide.loc[1.0].dropna().sort_values(ascending=False).index[:6]
    figure = lines(wide.index, wide[best], r"$\ell_2$ radius", "certified accuracy", "ImageNet, as published",
                   markers=True, from_zero=True)  # fmt: skip
    yield Slide(
        "Prior work: certified defenses", 1.0,
        "Of the twelve methods of the lecture's table, the six with the highest certified accuracy at r = 1. They "
        "differ in how f is made; the certificate is the same, randomized smoothing.",
        figure=figure,
        alt=f"Published certified accuracy on ImageNet against the radius of {', '.join(best)}.",
    )  # fmt: skip


def _paper(talk: Talk, logs: dict[float, pd.DataFrame]) -> Iterator[Slide]:
    yield Slide(
        "The paper", 1.5,
        "g answers what f answers most often on noisy copies of x. If p_A is a lower bound on how often, the radius is "
        "σ times the normal quantile of p_A, and no larger radius holds for every f. PREDICT and CERTIFY only count.",
        (
            PAPERS[talk.paper],
            "g(x): the class that f answers most often on x + noise",
            "certified radius: R = σ · Φ⁻¹(p_A)",
            "p_A from n votes by an exact binomial bound, wrong with probability α = 0.001 at most",
            _claim(talk),
        ),
    )  # fmt: skip
    table, lacking = targets(talk, logs), missing(talk, logs)
    run = str(talk.records)
    number = max((len(log) for log in logs.values()), default=0)
    said = f"Each cell of the paper's table beside ours, on {talk.data}, {number} images."
    commands = (f"not run yet, {len(lacking)} noise levels, the first: {lacking[0]}",) if lacking else ()
    yield Slide("Targets: the paper's table", 1.5, said, commands, table=table, run_id=run)
    if logs:
        with mpl.rc_context(STYLE):
            shown = {f"σ = {sigma:g}": log for sigma, log in logs.items()}
            figure = accuracy_curves(shown, f"{talk.data}, {number} images; points: the paper")
            paper = tables.published(f"{talk.paper}_{talk.benchmark}").query("certified_accuracy > 0")
            for line, sigma in zip(list(figure.axes[0].lines), logs):
                points = paper[paper["sigma"] == sigma]
                figure.axes[0].plot(points["radius"], points["certified_accuracy"] / 100, "o", color=line.get_color(),
                                    markersize=9)  # fmt: skip
        yield Slide(
            "What we have so far", 1.0, "Lines are ours, with 95 % intervals over the images; points are the paper's.",
            figure=figure, run_id=run,
            alt=f"Certified accuracy against the radius at {len(logs)} noise levels; points are the paper's numbers.",
        )  # fmt: skip
    else:
        yield Slide("What we have so far", 1.0, "Nothing has been run yet; say when.", commands, run_id=run)


def _closing(talk: Talk, logs: dict[float, pd.DataFrame]) -> Iterator[Slide]:
    said = "One sentence for each line, and what could go wrong."
    yield Slide("How our work differs", 1.0, said, talk.difference)
    rate, what = RATES[talk.benchmark]
    yield Slide(
        "What it costs", 0.5,
        f"Samples over the {rate:,} a second that {what} (docs/speed.md); the paper "
        "takes 100,100 of each image.",
        table=costs(talk, logs), run_id=talk.records if logs else "",
    )  # fmt: skip
    yield Slide("Next steps", 0.5, "Who does what, and by when.", table=pd.DataFrame(list(talk.tasks)))


def _claim(talk: Talk) -> str:
    """The paper's numbers at one radius: the best of its noise levels there."""
    table = tables.published(f"{talk.paper}_{talk.benchmark}").query("radius == 0.5")
    best = table.loc[table["certified_accuracy"].idxmax()]
    name = BENCHMARKS[talk.benchmark]
    return f"claim: {best.certified_accuracy:.0f} % of {name} certified at r = 0.5, with σ = {best.sigma:g}"


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
        figure.text(0.995, 0.005, run_id, ha="right", va="bottom", fontsize=POINTS, color="#595959")
    return figure


def alt_text(slide: Slide) -> str:
    """What stands for a slide's figure, with the run that it comes from."""
    return f"{slide.alt} Run: {slide.run_id}." if slide.run_id else slide.alt
