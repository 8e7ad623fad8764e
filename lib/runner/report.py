"""One table and one figure over the records of all runs of a sweep."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lib import figures, tables
from lib.records import read_log
from lib.runner.execute import shown
from lib.runner.grid import Point

RADII = np.arange(0, 2.5, 0.25)  # of the papers' tables
Logs = list[tuple[Point, str, pd.DataFrame]]  # point, name of the record, log


def finished_logs(points: Sequence[Point]) -> Logs:
    """The records that the points have made."""
    paths = [(point, path) for point in points for path in sorted((point.job.folder / "records").glob("*.tsv"))]
    return [(point, path.stem.rpartition("-")[0], read_log(path)) for point, path in paths]


def table(logs: Logs) -> pd.DataFrame:
    """A row a record: how many images and samples it has, its point, certified accuracy at the papers' radii, ACR."""
    rows = []
    for point, record, log in logs:
        accuracy: dict[str, Any] = dict(zip(map("{:g}".format, RADII), tables.certified_accuracy(log, RADII)))
        varied = {name: str(value) if isinstance(value, list) else value for name, value in point.varied.items()}
        names: dict[str, Any] = {"notebook": point.job.name, "run": point.job.folder.name, "record": record}
        names |= {"rows": len(log), "samples": int(log["n"].max())}
        rows.append(names | varied | accuracy | {"ACR": tables.average_certified_radius(log)})
    result = pd.DataFrame(rows)
    return result.drop(columns=[name for name in map("{:g}".format, RADII[1:]) if not result[name].any()])


def figure(logs: Logs) -> Figure:
    """Certified accuracy against radius: a panel for each record of a notebook, a curve for each point that made it.

    A curve is named by what differs between the points, and the title says what that is and what all have in common.
    """
    settings = [{name: str(value) for name, value in point.varied.items()} for point, *_ in logs]
    varied = [name for name in settings[0] if len({setting[name] for setting in settings}) > 1]
    common = [f"{name} = {value}" for name, value in settings[0].items() if name not in varied]
    panels: dict[str, dict[str, pd.DataFrame]] = {}
    for (point, record, log), setting in zip(logs, settings):
        curves = panels.setdefault(f"{point.job.name}\n{record}, {len(log)} images", {})
        own = ", ".join(f"{name} = {setting[name]}" for name in varied) or "all points"
        curves[own + f" ({len(curves) + 1})" * (own in curves)] = log
    furthest = max(float(log["radius"].max()) for *_, log in logs)
    rows, columns = -(-len(panels) // 3), min(len(panels), 3)
    with mpl.rc_context(figures.STYLE):
        result = Figure((4.6 * columns + 1, 4.2 * rows), layout="constrained")
        FigureCanvasAgg(result)
        for place, (title, curves) in enumerate(panels.items(), start=1):
            axes = result.add_subplot(rows, columns, place, xlabel="l2 radius")
            figures.accuracy_curves(curves, title, axes, furthest)
            axes.legend(fontsize="small")
        result.suptitle("; ".join([f"varied: {', '.join(varied) or 'nothing'}", *common]))
        result.supylabel("certified accuracy")
    return result


def publish(points: Sequence[Point], folder: Path, name: str) -> None:
    """Write the table and the figure over all records of the points that are complete."""
    logs = finished_logs(points)
    if not logs:
        print("no complete run has a record, so there is no table and no figure")
        return
    tables.save(table(logs), folder / "all")
    alt = f"Certified accuracy against radius in the sweep {name}: a panel a record, a curve a point of the grid."
    figures.save(figure(logs), folder / "certified_accuracy", alt, name)
    print(f"table     {shown(folder / 'all')}{{.csv,.md,.tex}}")
    print(f"figure    {shown(folder / 'certified_accuracy')}{{.png,.pdf,.svg}}")
