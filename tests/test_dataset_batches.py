"""Batches by index: every container and every kind of whole number gives the same images; all else is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from lib.datasets import stack

IMAGES, LABELS = torch.arange(5 * 12).view(5, 1, 3, 4) / 60, torch.tensor([0, 1, 2, 0, 1])


class Items(Dataset):
    """Items by index, as they were given."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


PAIRS = list(zip(IMAGES, LABELS.tolist()))
CONTAINERS = {
    "tensors": TensorDataset(IMAGES, LABELS),
    "bytes as labels": TensorDataset(IMAGES, LABELS.to(torch.uint8)),
    "a part": Subset(TensorDataset(IMAGES, LABELS), range(5)),
    "items": Items(PAIRS),
    "labels of numpy": Items([(image, np.int16(label)) for image, label in PAIRS]),
    "labels as tensors": Items([(image, torch.tensor(label)) for image, label in PAIRS]),
    "images of numpy": Items([[image.numpy(), label] for image, label in PAIRS]),
    "a chunk": dict(enumerate(PAIRS)),
}
each_container = pytest.mark.parametrize("dataset", CONTAINERS.values(), ids=CONTAINERS)
IDS = {
    "list": [3, 1],
    "tuple": (3, 1),
    "range": range(3, 0, -2),
    "iterator": lambda: iter([3, 1]),
    "int64": np.array([3, 1]),
    "uint8": np.array([3, 1], np.uint8),
    "numpy integers": [np.int64(3), np.int32(1)],
    "tensor": torch.tensor([3, 1]),
    "tensors": [torch.tensor(3), torch.tensor(1)],
    "index": pd.Index([3, 1]),
    "a filtered column": pd.DataFrame({"idx": [9, 3, 9, 1]})[1::2]["idx"],
}


@each_container
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_whole_numbers_of_any_kind_name_images(dataset, ids):
    images, labels = stack(dataset, ids() if callable(ids) else ids)
    assert torch.equal(images, IMAGES[[3, 1]])
    assert torch.equal(labels, LABELS[[3, 1]]) and labels.dtype == torch.int64


@each_container
@pytest.mark.parametrize("ids", [[2], [4, 4, 0], range(5)], ids=["one", "twice", "all"])
def test_one_image_all_images_and_one_twice_are_batches(dataset, ids):
    assert torch.equal(stack(dataset, ids)[0], IMAGES[list(ids)])


def test_a_chunk_keeps_its_own_ids():
    chunk = {40: PAIRS[1], 20: PAIRS[0]}
    assert torch.equal(stack(chunk, list(chunk))[0], IMAGES[[1, 0]])


MASK = [True, False, True, False, False]


@each_container
@pytest.mark.parametrize("ids", [MASK, np.array(MASK), torch.tensor(MASK), pd.Series(MASK), [0.0, 1.0], np.ones(2),
                                 "01", [0, None], [[0, 1]], 3, torch.tensor(3), None])  # fmt: skip
def test_what_is_no_list_of_whole_numbers_is_refused(dataset, ids):
    with pytest.raises(ValueError, match=r"ids must be a list of whole numbers, such as .*; got"):
        stack(dataset, ids)


@each_container
@pytest.mark.parametrize("ids", [[-1], [0, 5], [2**70]])
def test_ids_outside_the_dataset_are_named(dataset, ids):
    with pytest.raises(ValueError, match=rf"ids must be images of the dataset, which has 5; got \[{ids[-1]}\]"):
        stack(dataset, ids)


@each_container
def test_no_ids_are_no_batch(dataset):
    with pytest.raises(ValueError, match="ids must name at least one image"):
        stack(dataset, [])


@pytest.mark.parametrize("tensors", [(IMAGES,), (IMAGES, LABELS, LABELS)], ids=len)
def test_tensors_other_than_images_and_labels_are_refused(tensors):
    with pytest.raises(ValueError, match=rf"must hold \(images, labels\); got {len(tensors)} tensors"):
        stack(TensorDataset(*tensors), [0])


@pytest.mark.parametrize(
    "labels", [LABELS.float(), LABELS.half(), torch.nn.functional.one_hot(LABELS), LABELS[:, None]]
)
def test_labels_in_a_tensor_are_whole_numbers(labels):
    with pytest.raises(ValueError, match=r"labels must be whole numbers \(N,\).*got torch\.\w+ \(5"):
        stack(TensorDataset(IMAGES, labels), [0])


@pytest.mark.parametrize("label", [1.0, np.float32(1), torch.tensor(1.0), "cat", None, torch.tensor([0, 1])], ids=repr)
def test_labels_of_items_are_whole_numbers(label):
    with pytest.raises(ValueError, match="the label of image 1 must be a whole number; got"):
        stack(Items([PAIRS[0], (IMAGES[1], label)]), [0, 1])


@pytest.mark.parametrize("item, why", [
    ({"image": IMAGES[0], "label": 1}, r"item 0 must be a pair \(image, label\); got dict"),
    ((IMAGES[0],), "item 0 must be a pair"), (IMAGES[0], "item 0 must be a pair"),
    ((Image.new("L", (4, 3)), 1), r"image 0 must be a tensor .*; got Image: transform=.*ToTensor"),
], ids=["dict", "one", "no label", "picture"])  # fmt: skip
def test_items_are_pairs_of_image_and_label(item, why):
    with pytest.raises(ValueError, match=why):
        stack(Items([item]), [0])


def test_images_of_other_shapes_are_named():
    with pytest.raises(ValueError, match=r"one shape; got \{\(1, 3, 4\): 0, \(1, 3, 3\): 1\}"):
        stack(Items([PAIRS[0], (IMAGES[1, :, :, :3], 1)]), [0, 1])
