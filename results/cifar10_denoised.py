"""Denoised smoothing on CIFAR-10 within minutes of a CPU: is a small, briefly trained denoiser better than none?

    python -m results.cifar10_denoised --data FOLDER --weights resnet20-12fca82f.th

FOLDER holds train/<class>/ and test/<class>/ with 32 x 32 images; the committed records were made with a JPEG copy of
CIFAR-10. The weights are akamaster's clean ResNet-20. The records and their manifests go to
results/cifar10_jpeg_denoised/, the weights of the denoisers to runs/cifar10_jpeg/.
"""

import argparse
import dataclasses
from pathlib import Path

from torch.utils.data import TensorDataset

from lib import methods
from lib.config import DenoisedSmoothing
from lib.datasets import Data, fixed_subset, load_dataset
from lib.models import Denoised
from results.collect import keep_record

RECORDS = Path(__file__).parent / "cifar10_jpeg_denoised"
TRAINED_ON = 8000  # images, 1000 of them held out: a denoiser of 8 layers learns enough from them in minutes


def settings(data: Path, weights: Path) -> DenoisedSmoothing:
    """A short profiles/cifar10.yaml: one noise level, a tenth of the denoiser, 876 steps of MSE and 438 of Stab."""
    return DenoisedSmoothing(
        dataset="folder", data_dir=str(data.resolve()), run_dir="runs/cifar10_jpeg", skip=100, images=100, n=500,
        arch="cifar_resnet20", classifier=str(weights.resolve()), sigmas=(0.25,), augment=True,
        denoisers=("cifar_dncnn_small",), mse="4 epochs of 32, adam 1e-3",
        stab_mse=("2 epochs of 32, adam 1e-4", "2 epochs of 32, adam 1e-5"),
    )  # fmt: skip


def subset(data: Data, size: int) -> Data:
    """The data with `size` of its training images, evenly spaced: neighbours in a folder are of one class."""
    rows = fixed_subset(len(data.train), len(data.train) // size, size)
    return dataclasses.replace(data, train=TensorDataset(*data.train[rows]))


def make(cfg: DenoisedSmoothing) -> None:
    """Train the denoisers, certify the classifier without and with them, and copy the records."""
    data = subset(load_dataset("folder", cfg.data_path), TRAINED_ON)
    ids = fixed_subset(len(data.test), cfg.skip, cfg.images)
    clean, sigma = methods.clean_classifier(cfg, data), cfg.sigmas[0]
    bases = {
        "no_denoiser": clean,
        "mse": Denoised(methods.mse_denoiser(cfg, data, sigma), clean),
        "stab_mse": Denoised(methods.stab_mse_denoiser(cfg, data, sigma, clean), clean),
    }
    for name, base in bases.items():
        methods.certified(cfg, data, base, sigma, name, ids)
        keep_record(cfg.run_path / "records", name, RECORDS)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m results.cifar10_denoised")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/<class>/ and test/<class>/")
    parser.add_argument("--weights", type=Path, required=True, help="resnet20-12fca82f.th of akamaster")
    options = parser.parse_args()
    make(settings(options.data, options.weights))


if __name__ == "__main__":
    main()
