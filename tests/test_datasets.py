"""Datasets: what a loader states of its images is true, and subsets and splits are those asked for."""

import numpy as np
import pytest
import torch
from image_folders import write_folder, write_images
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import Subset, TensorDataset

from lib.datasets import (
    CIFAR10_CLASSES,
    CIFAR10_MEAN,
    IMAGENET_MEAN,
    augment,
    fixed_subset,
    holdout,
    load_dataset,
)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def test_digits_are_scikit_learns_images_divided_by_16(digits):
    bundled = load_digits()
    images = np.concatenate([digits.train.tensors[0].numpy(), digits.test.tensors[0].numpy()])
    rows = np.arange(1797)
    order = np.concatenate([rows[rows % 18 >= 5], rows[rows % 18 < 5]])
    assert np.array_equal(images[:, 0] * 16, bundled.images[order])
    assert np.array_equal(torch.cat([digits.train.tensors[1], digits.test.tensors[1]]), bundled.target[order])


def test_digits_have_500_test_images_with_every_class(digits):
    assert (len(digits.train), len(digits.test)) == (1297, 500)
    assert torch.bincount(digits.test.tensors[1], minlength=10).min() >= 30


def test_a_digit_is_a_float32_image_in_0_1_and_an_integer_label(digits):
    image, label = digits.test[0]
    assert (image.dtype, tuple(image.shape), digits.image_shape) == (torch.float32, (1, 8, 8), (1, 8, 8))
    assert 0 <= image.min() <= image.max() <= 1
    assert label.dtype == torch.int64


def test_mean_and_std_of_the_digits_are_those_of_their_training_images(digits):
    pixels = load_digits().images[np.arange(1797) % 18 >= 5] / 16
    assert digits.mean[0] == pytest.approx(pixels.mean(), abs=5e-5)
    assert digits.std[0] == pytest.approx(pixels.std(), abs=5e-5)


def test_an_unknown_dataset_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"'cifar10', 'digits', 'folder', 'imagenet'.*name='mnist'"):
        load_dataset("mnist")


def test_only_cifar10_is_downloaded(tmp_path):
    with pytest.raises(ValueError, match="download=True is for 'cifar10' only, got name='imagenet'"):
        load_dataset("imagenet", tmp_path, download=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 17, -1])
@pytest.mark.parametrize("row, split", [(0, "test"), (17, "training")])
def test_a_pixel_outside_0_1_is_refused(value, row, split, monkeypatch):
    bundled = load_digits()
    bundled.images[row, 3, 3] = value
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: bundled)
    with pytest.raises(ValueError, match=rf"digits: pixels of {split} images must lie in \[0, 1\], got"):
        load_dataset("digits")


def test_labels_that_leave_a_class_out_are_refused(monkeypatch):
    bundled = load_digits()
    bundled.target[bundled.target == 3] = 4
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: bundled)
    with pytest.raises(ValueError, match=r"digits: training labels must be 0..9, each of them present"):
        load_dataset("digits")


def test_missing_cifar10_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"download=True \(170 MB\)"):
        load_dataset("cifar10", tmp_path)


class FakeCifar10:
    """Stands for torchvision's class, which verifies md5 sums and so cannot be given a small file."""

    def __init__(self, root, train, download):
        self.asked = download
        assert not download
        self.data = np.random.default_rng(int(train)).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        self.targets = [index % 10 for index in range(20)]


def test_cifar10_pixels_are_bytes_divided_by_255_with_channels_first(monkeypatch, tmp_path):
    monkeypatch.setattr("torchvision.datasets.CIFAR10", FakeCifar10)
    data = load_dataset("cifar10", tmp_path)
    expected = FakeCifar10(None, train=False, download=False).data.transpose(0, 3, 1, 2) / np.float32(255)
    assert np.array_equal(data.test.tensors[0].numpy(), expected)
    assert data.class_names == CIFAR10_CLASSES


def test_missing_imagenet_says_what_to_fetch_and_where_to_put_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ILSVRC2012_img_val.tar \(6.3 GB\)") as error:
        load_dataset("imagenet", tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_folder_of_small_images_keeps_its_pixels_and_sorts_its_classes(tmp_path):
    pixels = write_images(tmp_path, "test", ["ant", "bee"], (9, 7))
    data = load_dataset("folder", tmp_path)
    images, labels = data.test.tensors
    assert np.array_equal(images.numpy(), pixels.transpose(0, 3, 1, 2) / np.float32(255))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (data.class_names, data.image_shape) == (("ant", "bee"), (3, 7, 9))


def test_a_folder_without_training_images_has_no_training_set(tmp_path):
    write_images(tmp_path, "val", ["ant", "bee"], (8, 8))
    assert load_dataset("folder", tmp_path).train is None


@pytest.mark.parametrize("classes, mean", [(CIFAR10_CLASSES, CIFAR10_MEAN), (("ant", "bee"), IMAGENET_MEAN)])
def test_a_folder_is_normalised_as_cifar10_only_where_the_classes_are_cifar10s(tmp_path, classes, mean):
    write_images(tmp_path, "test", classes, (8, 8), count=1)
    assert load_dataset("folder", tmp_path).mean == mean


@pytest.mark.filterwarnings("ignore:.*are resized")
def test_large_images_are_resized_to_256_and_cropped_to_224(tmp_path):
    pixels = write_images(tmp_path, "test", ["ant", "bee"], (300, 260), count=1)
    data = load_dataset("folder", tmp_path)
    resized = Image.fromarray(pixels[0]).resize((int(256 * 300 / 260), 256), Image.Resampling.BILINEAR)
    left, top = round((resized.width - 224) / 2), 16
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
    assert np.array_equal(data.test[0][0].numpy().transpose(1, 2, 0), expected)


def test_an_image_of_another_size_is_named(tmp_path):
    write_images(tmp_path, "test", ["ant", "bee"], (8, 8))
    Image.new("RGB", (9, 8)).save(tmp_path / "test" / "bee" / "0009.png")
    with pytest.raises(ValueError, match=r"bee/0009.png has size \(9, 8\), the first image \(8, 8\)"):
        load_dataset("folder", tmp_path)


def test_the_papers_subset_of_cifar10_is_every_20th_image():
    assert fixed_subset(10_000, 20) == list(range(0, 10_000, 20))


def test_limit_counts_images_not_indices():
    assert fixed_subset(10_000, skip=20, limit=500)[-1] == 9_980


@pytest.mark.parametrize("arguments", [(0, 1, None), (10, 0, None), (10, 1, 0), (10, -1, None)])
def test_a_subset_of_nothing_is_refused(arguments):
    with pytest.raises(ValueError, match=r"^(length|skip|limit) must be a whole number >= 1; got"):
        fixed_subset(*arguments)


def numbered(count):
    return TensorDataset(torch.zeros(count, 1, 2, 2), torch.arange(count))


@pytest.mark.parametrize("size, count", [(30, 30), (0.25, 25)])
def test_holdout_parts_are_disjoint_and_leave_nothing_out(size, count):
    fit, held_out = holdout(numbered(100), size, seed=1)
    labels = torch.cat([fit.tensors[1], held_out.tensors[1]])
    assert len(held_out) == count
    assert labels.sort().values.tolist() == list(range(100))


def test_holdout_is_the_same_for_the_same_seed_and_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second, other = (holdout(numbered(100), 30, seed)[1].tensors[1] for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_nothing_cannot_be_held_out_of_no_training_images():
    with pytest.raises(ValueError, match=r"train is None: .*add train/<class>/"):
        holdout(None, 3, seed=0)


@pytest.mark.parametrize("size", [0, 100, 1.0, -3, True, "5", None])
def test_holdout_must_leave_images_on_both_sides(size):
    with pytest.raises(ValueError, match=r"^size must.*got"):
        holdout(numbered(100), size, seed=0)


@pytest.mark.filterwarnings("ignore:.*are resized")
@pytest.mark.parametrize("part", [lambda train: train, lambda train: Subset(train, range(5))], ids=["all", "a part"])
def test_held_out_images_of_a_lazy_folder_are_not_randomly_cropped(part, tmp_path):
    data = load_dataset("folder", write_folder(tmp_path, (80, 70)))
    fit, held_out = holdout(part(data.train), 3, seed=0)
    assert torch.equal(held_out[0][0], held_out[0][0])
    assert not torch.equal(fit[0][0], fit[0][0])


def test_the_transform_of_another_dataset_is_left_alone():
    class Own(TensorDataset):
        transform = "of its own"

    assert holdout(Own(*numbered(10).tensors), 3, seed=0)[1].dataset.transform == "of its own"


def crops(image, padding):
    """Every crop of a zero-padded (C, H, W) image, and its mirror image."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    shifts = range(2 * padding + 1)
    plain = [padded[:, top : top + height, left : left + width] for top in shifts for left in shifts]
    return plain + [crop[:, :, ::-1] for crop in plain]


def test_augmented_images_are_crops_of_the_padded_image_or_their_mirror_images():
    image = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(3))
    batch = augment(image.expand(400, -1, -1, -1), torch.Generator().manual_seed(4), padding=1)
    candidates = np.stack(crops(image.numpy(), 1))
    hits = (batch.numpy()[:, None] == candidates[None]).all(axis=(2, 3, 4))
    assert (hits.sum(axis=1) == 1).all()
    assert (hits.sum(axis=0) > 5).all()  # 18 candidates, about 22 each: all of them are drawn


def test_augment_draws_from_the_given_generator_only():
    images = torch.rand(8, 3, 32, 32)
    before = torch.get_rng_state()
    first, second = (augment(images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())
