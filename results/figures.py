"""Draw the README's figures again from the committed records: `make figures`."""

from pathlib import Path

from lib import figures, tables
from lib.records import read_log

RESULTS = Path(__file__).parent
SIGMAS = (0.12, 0.25, 0.5)


def main() -> None:
    """Write results/figures/certified_accuracy.{png,pdf,svg}."""
    logs = {f"σ = {s}": read_log(RESULTS / f"digits/01_train_{s}-test_{s}.tsv") for s in SIGMAS}
    figure = figures.accuracy_curves(logs, "Randomized smoothing on 500 digits: n = 10,000, α = 0.001")
    figures.save(figure, RESULTS / "figures/certified_accuracy", ALT, run_id="results/digits")
    print(tables.to_markdown(tables.accuracy_table(logs, [0, 0.25, 0.5, 0.75]), tables.percent))


ALT = (
    "Certified accuracy on 500 handwritten digits against the l2 radius, one curve for each noise level: "
    "more noise starts lower and reaches further."
)

if __name__ == "__main__":
    main()
