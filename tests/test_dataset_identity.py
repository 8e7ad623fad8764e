"""Fingerprints: equal for equal data in every process, another for another pixel, label, order or transform."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import write_folder
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

from lib.datasets import Data, fingerprint, image_digests, image_keys, load_dataset, stack

pytestmark = pytest.mark.filterwarnings("ignore:.*are resized")
IMAGES, LABELS = torch.arange(5 * 12).view(5, 1, 3, 4) / 60, torch.tensor([0, 1, 2, 0, 1])


class Items(Dataset):
    """A dataset of somebody else: items by index, of no kind that is known."""

    def __init__(self, images=IMAGES, labels=LABELS):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], int(self.labels[i])


class Named(Items):
    def identity(self):
        return "the fifth edition"


def chunk(images=IMAGES, labels=LABELS):
    return {i: pair for i, pair in enumerate(zip(images, labels.tolist()))}


KINDS = {"tensors": TensorDataset, "items": Items, "chunk": chunk, "named": lambda *_: Named(),
         "part": lambda *parts: Subset(TensorDataset(*parts), range(5)), "part of items": lambda *parts:
         Subset(Items(*parts), [0, 1, 2, 3, 4])}  # fmt: skip
each_kind = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "named"])


def of(kind: str, images=IMAGES, labels=LABELS) -> str:
    return fingerprint(KINDS[kind](images, labels))


def variants() -> list[tuple]:
    """The data, and what differs from it in one thing."""
    pixel, label = IMAGES.clone(), LABELS.clone()
    pixel[4, 0, 2, 3] += 1e-6
    label[4] = 2
    order = [1, 0, 2, 3, 4]
    return [(IMAGES, LABELS), (pixel, LABELS), (IMAGES, label), (IMAGES[order], LABELS[order]), (IMAGES[order], LABELS),
            (IMAGES.double(), LABELS), (IMAGES.view(5, 1, 4, 3), LABELS), (IMAGES.view(5, 3, 4, 1), LABELS),
            (IMAGES + 0.001, LABELS)]  # fmt: skip


@each_kind
def test_another_pixel_label_order_type_or_shape_is_another_fingerprint(kind):
    assert len({of(kind, *each) for each in variants()}) == len(variants())


@each_kind
def test_equal_data_have_one_fingerprint_however_they_lie_in_memory(kind):
    strided = IMAGES.repeat_interleave(2, dim=0)[::2]
    assert of(kind) == of(kind, strided, LABELS.clone()) and len(of(kind)) == 64
    assert int(of(kind), 16) >= 0


def test_a_chunk_with_other_ids_is_another():
    assert fingerprint({0: (IMAGES[0], 1)}) != fingerprint({40: (IMAGES[0], 1)})


def test_other_indices_are_another_part():
    data = TensorDataset(IMAGES, LABELS)
    parts = [[0, 1], [1, 0], [0], [0, 1, 1], [10]]
    assert len({fingerprint(Subset(data, part)) for part in parts}) == 5
    assert fingerprint(Subset(data, torch.tensor([0, 1]))) == fingerprint(Subset(data, np.array([0, 1])))


def test_a_dataset_with_an_identity_is_told_by_it():
    assert fingerprint(Named()) == fingerprint(Named(IMAGES + 1)) != fingerprint(Items())


def test_a_tensor_dataset_that_changes_its_items_is_read():
    class Brighter(TensorDataset):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            return image + 0.5, label

    assert fingerprint(Brighter(IMAGES, LABELS)) == of("items", IMAGES + 0.5) != of("tensors")


def test_items_that_change_from_one_reading_to_the_next_are_refused():
    class Noisy(Items):
        def __getitem__(self, i):
            return torch.rand(1, 3, 4), 0

    with pytest.raises(ValueError, match=r"Noisy gives other images each time .*give it a method identity\(\)"):
        fingerprint(Noisy())


@pytest.mark.parametrize("dataset", [iter([]), None, load_dataset("digits")], ids=["stream", "none", "Data"])
def test_what_has_no_items_has_no_fingerprint(dataset):
    with pytest.raises(ValueError, match=r"dataset must have a length and items \(image, label\); got"):
        fingerprint(dataset)


# --- folders -----------------------------------------------------------------------------------------


def folder_prints(root: Path) -> list[str]:
    data = load_dataset("folder", root)
    return [fingerprint(split) for split in (data.train, data.test)]


def test_a_folder_elsewhere_is_the_same_and_train_is_not_test(tmp_path):
    write_folder(tmp_path / "a", (80, 70))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert folder_prints(tmp_path / "a") == folder_prints(tmp_path / "b")
    assert len(set(folder_prints(tmp_path / "a"))) == 2  # the transforms differ


CHANGES = {
    "one more": lambda test: shutil.copy(test / "ant/0000.png", test / "ant/new.png"),
    "one less": lambda test: (test / "ant/0000.png").unlink(),
    "another name": lambda test: (test / "ant/0000.png").rename(test / "ant/new.png"),
    "another class": lambda test: (test / "ant/0000.png").rename(test / "bee/new.png"),
    "another size": lambda test: Image.new("RGB", (80, 70)).save(test / "ant/0000.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_file_is_another_fingerprint(change, tmp_path):
    before = folder_prints(write_folder(tmp_path, (80, 70)))[1]
    CHANGES[change](tmp_path / "test")
    assert folder_prints(tmp_path)[1] != before


def test_other_labels_of_the_same_files_are_another_fingerprint(tmp_path):
    folder = ImageFolder(write_folder(tmp_path) / "test", T.ToTensor())
    before, folder.samples = fingerprint(folder), [(path, 1 - label) for path, label in folder.samples]
    assert fingerprint(folder) != before


def test_another_transform_is_another_fingerprint_also_where_it_has_no_name(tmp_path):
    root = write_folder(tmp_path, (80, 70)) / "test"
    transforms = [T.ToTensor(), T.Compose([T.Resize(8), T.ToTensor()]), lambda image: T.ToTensor()(image) / 2,
                  lambda image: T.ToTensor()(image) / 3, T.Compose([T.ToTensor(), T.Lambda(lambda image: image / 4)]),
                  T.Compose([T.ToTensor(), T.Lambda(lambda image: image / 5)])]  # fmt: skip
    assert len({fingerprint(ImageFolder(root, transform)) for transform in transforms}) == 6
    folders = (ImageFolder(root, lambda image: T.ToTensor()(image) / 2) for _ in range(2))
    assert len({fingerprint(folder) for folder in folders}) == 1


def test_a_folder_that_changes_its_items_is_read(tmp_path):
    class Darker(ImageFolder):
        def __getitem__(self, i):
            image, label = super().__getitem__(i)
            return image / 2, label

    root = write_folder(tmp_path, (80, 70)) / "test"
    assert fingerprint(Darker(root, T.ToTensor())) != fingerprint(ImageFolder(root, T.ToTensor()))


def all_prints(root: str) -> str:
    return " ".join([*map(of, KINDS), *folder_prints(Path(root)), load_dataset("digits").identity])


def test_another_process_finds_the_same_fingerprints(tmp_path):
    write_folder(tmp_path, (80, 70))
    here = Path(__file__).parent
    code = f"import test_dataset_identity as t; print(t.all_prints({str(tmp_path)!r}))"
    environment = os.environ | {
        "PYTHONPATH": f"{here}:{here.parent}",
        "PYTHONHASHSEED": "5",
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == all_prints(str(tmp_path))


# --- images ------------------------------------------------------------------------------------------


def test_an_image_has_one_digest_in_every_container_and_place():
    expected = image_digests(TensorDataset(IMAGES, LABELS), range(5))
    for dataset in (Items(), chunk(), Subset(Items(), range(5)), TensorDataset(IMAGES, LABELS.int())):
        assert image_digests(dataset, np.array([4, 0, 4])) == [expected[4], expected[0], expected[4]]
    assert {len(digest) for digest in expected} == {16} and len(set(expected)) == 5


def test_the_digest_of_an_image_knows_its_pixels_label_type_and_shape():
    changed = [variants()[i] for i in (0, 1, 2, 5, 6, 7)]
    assert len({image_digests(Items(*each), [4])[0] for each in changed}) == 6
    assert len({image_digests(Items(*each), [0])[0] for each in changed}) == 4  # pixel and label are those of image 4


def test_images_are_read_in_chunks(monkeypatch):
    asked = []
    monkeypatch.setattr("lib.datasets.identity.stack", lambda data, ids: asked.append(len(ids)) or stack(data, ids))
    assert len(image_digests(Items(), np.arange(1000) % 5)) == 1000
    assert max(asked) <= 64 and sum(asked) == 1000


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_named(label):
    with pytest.raises(ValueError, match=rf"label of image 4 must lie in 0 ... 2; got {label}"):
        image_keys(Items(labels=[0, 1, 2, 0, label]), range(5), num_classes=3)


def test_the_key_of_an_image_is_its_digest_and_its_label():
    keys = image_keys(Items(), [2, 0])
    assert list(keys) == [2, 0] and [key.digest for key in keys.values()] == image_digests(Items(), [2, 0])
    assert [key.label for key in keys.values()] == stack(Items(), [2, 0])[1].tolist()


def test_no_images_have_no_digests():
    assert image_digests(Items(), []) == []


# --- the name to read ----------------------------------------------------------------------------------


def test_the_bundled_digits_are_told_by_their_name_alone():
    assert load_dataset("digits").identity == "digits"


def test_the_identity_follows_the_images():
    data = load_dataset("digits")
    images, labels = data.test.tensors
    few, other = TensorDataset(images[:400], labels[:400]), TensorDataset(images, labels.flip(0))
    names = [replace(data, test=test).identity for test in (few, other)] + [replace(data, name="mine").identity]
    assert names == [f"digits {fingerprint(few)[:12]}", f"digits {fingerprint(other)[:12]}",
                     f"mine {fingerprint(data.test)[:12]}"]  # fmt: skip
    assert replace(data, train=None).identity == "digits"


@pytest.mark.parametrize("name", ["cifar10", "imagenet", "folder"])
def test_images_with_a_name_are_told_by_name_and_content(name):
    data = Data(name, None, TensorDataset(IMAGES, LABELS), 3, ("a", "b", "c"), (1, 3, 4), (0.0,), (1.0,))
    assert data.identity == f"{name} {of('tensors')[:12]}"


@pytest.mark.parametrize("size", [(32, 32), (300, 280)])
def test_more_images_have_another_identity_and_the_same_ones_the_same(size, tmp_path):
    one, again, more = (load_dataset("folder", write_folder(tmp_path / name, size)) for name in "abc")
    assert one.identity == again.identity == more.identity and one.identity.startswith("folder ")
    shutil.copy(tmp_path / "c/test/ant/0000.png", tmp_path / "c/test/ant/more.png")
    assert load_dataset("folder", tmp_path / "c").identity != one.identity


def test_one_other_pixel_is_another_identity(tmp_path):
    before, path = load_dataset("folder", write_folder(tmp_path)).identity, tmp_path / "test/ant/0000.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    assert load_dataset("folder", tmp_path).identity != before
