"""Draw the README's figures again from the committed records: `make figures`."""

from pathlib import Path

from matplotlib.figure import Figure

from lib import figures, tables
from lib.records import read_log

RESULTS = Path(__file__).parent
SIGMAS = (0.12, 0.25, 0.5)
METHODS = {
    "trained on noise (Cohen et al. 2019)": "03_trained_on_noise_0.5",
    "Stab+MSE denoiser (Salman et al. 2020)": "03_Stab+MSE_denoiser_0.5",
    "one-step diffusion (Carlini et al. 2023)": "03_one-step_diffusion_0.5",
}
RECORDS = [f"01_train_{s}-test_{s}" for s in SIGMAS] + list(METHODS.values())  # what `results.collect` keeps


# Beside the paper's points: title -> record.
BESIDE_THE_PAPER = {f"σ = {s}, one GPU": f"cifar10_fast/01_train_{s}-test_{s}" for s in (0.12, 0.25, 0.5, 1.0)} | {
    "σ = 0.25, two CPU cores": "cifar10_cpu/01_train_0.25-test_0.25"
}


def log(name: str):
    """A committed record of the digits run."""
    return read_log(RESULTS / f"digits/{name}.tsv")


def beside_the_paper() -> Figure:
    """Our curves on the JPEG copy of CIFAR-10, and the points of the paper's table for each of their noise levels."""
    logs = {title: read_log(RESULTS / f"{name}.tsv") for title, name in BESIDE_THE_PAPER.items()}
    title = "Cohen et al. on CIFAR-10 (JPEG copy): 500 images, n ≤ 100,000, α = 0.001"
    return figures.accuracy_curves(logs, title, paper=("cohen2019", "cifar10"))


def main() -> None:
    """Write results/figures/{certified_accuracy,three_papers}.{png,pdf,svg} and print the numbers behind them."""
    by_sigma = {f"σ = {s}": log(f"01_train_{s}-test_{s}") for s in SIGMAS}
    figure = figures.accuracy_curves(by_sigma, "Randomized smoothing on 500 digits: n = 10,000, α = 0.001")
    figures.save(figure, RESULTS / "figures/certified_accuracy", ALT_SIGMA, run_id="results/digits")
    by_method = {title: log(name) for title, name in METHODS.items()}
    figure = figures.accuracy_curves(by_method, "Three papers on 200 digits: σ = 0.5, n = 1,000, α = 0.001")
    figures.save(figure, RESULTS / "figures/three_papers", ALT_METHOD, run_id="results/digits")
    figures.save(beside_the_paper(), RESULTS / "figures/paper_cifar10", ALT_PAPER, run_id="results")
    print(tables.to_markdown(tables.accuracy_table(by_sigma | by_method, [0, 0.25, 0.5, 0.75]), tables.percent))


ALT_SIGMA = (
    "Certified accuracy on 500 handwritten digits against the l2 radius, one curve for each noise level: "
    "more noise starts lower and reaches further."
)
ALT_METHOD = (
    "Certified accuracy on 200 handwritten digits against the l2 radius for a classifier trained on noise, a trained "
    "denoiser and a diffusion model before an ordinary classifier: first and last lie together, above the second."
)
ALT_PAPER = (
    "Certified accuracy on CIFAR-10 against the l2 radius at noise levels 0.12, 0.25, 0.5 and 1, trained on a GPU, and "
    "at 0.25 on two CPU cores, with the paper's table as points: no curve lies more than five points below them."
)

if __name__ == "__main__":
    main()
