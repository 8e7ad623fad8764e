"""What a dataset is to the rest of the kit: images, labels, and what a classifier must know about them."""

from dataclasses import dataclass

from torch.utils.data import Dataset

from lib.datasets.identity import fingerprint

# The test images that a name alone tells: those that come with scikit-learn.
BUNDLED = {"digits": "23a21b3d9275"}


@dataclass(frozen=True)
class Data:
    """A dataset and what a classifier must know about it.

    `train` is None where only the test images are on the disk: certifying needs no others. `image_shape` is
    (C, H, W); `mean` and `std` have one value a channel, in [0, 1] pixel units. `folder` is where the files
    are, if any.
    """

    name: str
    train: Dataset | None
    test: Dataset
    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    folder: str = ""

    @property
    def identity(self) -> str:
        """A name to read: `name` and the first 12 digits of the test images' fingerprint, or just "digits"."""
        digits = fingerprint(self.test)[:12]
        return self.name if digits == BUNDLED.get(self.name) else f"{self.name} {digits}"


def training_images(data: Data) -> Dataset:
    """The images to train on; ValueError, with the folder to fill, where there are none."""
    if data.train is None or not len(data.train):  # type: ignore[arg-type]
        where = f"{data.folder}/train/<class>/" if data.folder else "train/<class>/ of the data's folder"
        raise ValueError(f"{data.name} has no training images: put them into {where} (certifying needs none)")
    return data.train
