"""Folders that are not read before they are certified: planned by file, sharded, resumed, and never a stale row."""

import json
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_certification import rows_asked_for, without_time
from test_records import without_time as bytes_without_time
from torch.utils.data import Subset, TensorDataset
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

from benchmarks import large
from lib import certification
from lib.certification import certify_dataset
from lib.datasets import fingerprint, folders, identity, image_digests, image_keys, stack
from lib.datasets.folders import Images
from lib.smoothing import SmoothedClassifier

COUNT = 40  # images, in two classes
READ = []  # the paths that were read, in order


def counted(path):
    READ.append(path)
    return folders.read_image(path)


class Brightness(torch.nn.Module):
    def forward(self, images):
        score = images.mean((1, 2, 3)) - 0.5
        return torch.stack([-score, score], dim=1)


@pytest.fixture(autouse=True)
def old_files(monkeypatch):
    """Files count as old at once: a test need not wait for two seconds."""
    monkeypatch.setattr(identity, "YOUNG", -1)
    READ.clear()


@pytest.fixture
def root(tmp_path):
    """BMP files: other pixels leave their size as it is."""
    pixels = np.random.default_rng(3).integers(0, 256, (COUNT, 6, 8, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        path = tmp_path / "images" / "ab"[i * 2 // COUNT] / f"{i % (COUNT // 2):02d}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "images"


def folder(root, *steps):
    images = Images(root)
    images.transform, images.loader = T.Compose([*steps, T.ToTensor()]), counted
    return images


def certify(dataset, where, ids=range(COUNT), **how):
    g = SmoothedClassifier(Brightness().eval(), 0.5, 2, batch_size=100)
    return certify_dataset(g, dataset, ids, where / "records" / "log", **{"n0": 10, "n": 100, "alpha": 0.01} | how)


def stop_at(rows):
    def progress(done):
        if done >= rows:
            raise KeyboardInterrupt

    return progress


def stopped(dataset, where, rows, **how):
    with pytest.raises(KeyboardInterrupt):
        certify(dataset, where, progress=stop_at(rows), **how)


def record(where):
    return next((where / "records").glob("*.tsv"))


# --- planned ---------------------------------------------------------------------------------------------


def test_few_images_are_read_before_the_first_is_certified(root, tmp_path):
    stopped(folder(root), tmp_path, 0)
    assert len(READ) <= 20 and len(set(READ)) == 8  # twice, to see whether they change, and two for the probe


@pytest.mark.parametrize("rows", [0, 10, 30, COUNT])
def test_what_is_done_is_not_read_again(rows, root, tmp_path):
    stopped(folder(root), tmp_path, rows)
    READ.clear()
    stopped(folder(root), tmp_path, rows) if rows < COUNT else certify(folder(root), tmp_path)
    assert len(READ) <= 20


def test_a_folder_and_its_pixels_in_memory_give_the_same_log(root, tmp_path):
    images, labels = stack(folder(root), range(COUNT))
    here, there = (certify(data, tmp_path / name) for data, name in
                   ((folder(root), "a"), (TensorDataset(images, labels), "b")))  # fmt: skip
    pd.testing.assert_frame_equal(without_time(here), without_time(there))


def test_the_name_of_a_record_of_tensors_is_made_of_its_pixels_as_ever(root, tmp_path):
    data = TensorDataset(*stack(folder(root), range(COUNT)))
    certify(data, tmp_path)
    images = [[i, [digest, int(data[i][1])]] for i, digest in enumerate(image_digests(data, range(COUNT)))]
    parameters = json.loads(record(tmp_path).with_suffix(".json").read_text())["parameters"]
    assert record(tmp_path).name == f"log-{certification._digest([parameters, images])}.tsv"


def test_a_part_of_a_folder_is_planned_by_its_files_too(root):
    keys = image_keys(Subset(Subset(folder(root), range(5, 30)), [20, -1, 3]), range(3))
    whole = image_keys(folder(root), [25, 29, 8])
    assert list(keys.values()) == list(whole.values()) and all(key.stamp for key in keys.values())


@pytest.mark.parametrize("ids", [[COUNT], [-1]])
def test_an_image_that_the_folder_lacks_is_refused(ids, root):
    with pytest.raises(ValueError, match="ids must be images of the dataset, which has 40"):
        image_keys(folder(root), ids)


def test_labels_are_checked_of_all_images_and_none_is_read(root):
    with pytest.raises(ValueError, match=r"label of image 20 must lie in 0 \.\.\. 0; got 1"):
        image_keys(folder(root), range(COUNT), num_classes=1)
    assert not READ


def test_a_folder_is_moved_without_another_key_and_other_reading_is_another(root, tmp_path):
    shutil.copytree(root, tmp_path / "copy")
    digests = [[key.digest for key in image_keys(folder(*how), range(COUNT)).values()] for how in
               ((root,), (tmp_path / "copy",), (root, T.Grayscale(3)))]  # fmt: skip
    assert digests[0] == digests[1] and not set(digests[0]) & set(digests[2]) and len(set(digests[0])) == COUNT


def test_the_size_of_a_file_is_in_its_key(root):
    path = root / "a/05.bmp"
    before = image_keys(folder(root), range(COUNT))
    path.write_bytes(path.read_bytes() + b" ")
    after = image_keys(folder(root), range(COUNT))
    assert [i for i in range(COUNT) if before[i].digest != after[i].digest] == [5]


@pytest.mark.parametrize("step", [T.RandomHorizontalFlip(), T.ColorJitter(0.5), T.RandomErasing(0.1)], ids=repr)
def test_random_transforms_are_refused(step, root, tmp_path):
    steps = [T.ToTensor(), step, T.ToPILImage()] if isinstance(step, T.RandomErasing) else [step]
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"gives other images each time|had other pixels"):
        certify(folder(root, *steps), tmp_path)


# --- never a stale row -----------------------------------------------------------------------------------

CHANGED = 5  # the image that changes: "a/05.bmp"


def other_pixels(path):
    image = np.asarray(Image.open(path)).copy()
    image[0, 0, 0] ^= 1
    Image.fromarray(image).save(path)


def keeping_its_time(path):
    before = os.stat(path)
    other_pixels(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def by_another_file(path):
    other = path.with_name("other.bmp")
    shutil.copy2(path, other)
    keeping_its_time(other)
    other.replace(path)


def swapped_folders(path):
    other = path.parents[1].with_name("others")
    shutil.copytree(path.parents[1], other)
    keeping_its_time(other / path.parent.name / path.name)
    path.parents[1].rename(path.parents[1].with_name("first"))
    other.rename(path.parents[1])


def swapped_files(path):
    other, between = path.with_name("06.bmp"), path.with_name("between")
    path.rename(between), other.rename(path), between.rename(other)


WAYS = [other_pixels, keeping_its_time, by_another_file, swapped_folders, swapped_files]


@pytest.mark.parametrize("change", WAYS)
@pytest.mark.parametrize("rows", [30, COUNT])
def test_a_row_whose_image_has_changed_is_refused(rows, change, root, tmp_path):
    stopped(folder(root), tmp_path, rows)
    change(root / "a/05.bmp")
    with pytest.raises(ValueError, match=r"image 5 had other pixels or another label .* choose another path"):
        certify(folder(root), tmp_path)


@pytest.mark.parametrize("change", WAYS)
def test_only_the_rows_of_images_that_are_the_same_are_taken_up_elsewhere(change, root, tmp_path, monkeypatch):
    certify(folder(root), tmp_path, ids=range(30))
    change(root / "a/05.bmp")
    asked = rows_asked_for(monkeypatch)
    log = certify(folder(root), tmp_path, ids=range(20))
    assert asked == ([5, 6] if change is swapped_files else [5])
    assert log["image"].tolist() == image_digests(folder(root), range(20))


def test_a_library_that_reads_files_otherwise_is_seen(root, tmp_path, monkeypatch):
    certify(folder(root), tmp_path)
    read_image = folders.read_image

    def otherwise(path):
        image = read_image(path)
        red, green, blue = image.getpixel((0, 0))
        image.putpixel((0, 0), (red ^ 1, green, blue))  # too little for the probe
        return image

    monkeypatch.setattr(folders, "read_image", otherwise)
    with pytest.raises(ValueError, match="image 0 had other pixels"):
        certify(folder(root), tmp_path)


def test_a_file_too_young_to_tell_is_read_again(root, tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "YOUNG", 10**18)
    certify(folder(root), tmp_path)
    READ.clear()
    certify(folder(root), tmp_path)
    assert len(set(READ)) == COUNT


SPOILT = {
    "missing": lambda data: b"",
    "cut off in a digest": lambda data: data[:-3],
    "cut off in a stamp": lambda data: data[:-20],
    "no text": lambda data: b"\xff" * len(data),
    "other digests": lambda data: re.sub(rb"\w{16}\n", b"0" * 16 + b"\n", data),
    "other times": lambda data: data.replace(b"-", b"0-"),
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_lost_or_damaged_list_of_files_costs_one_reading_and_nothing_else(spoil, root, tmp_path):
    log = certify(folder(root), tmp_path)
    seen = next((tmp_path / "records").glob("*.seen"))
    seen.write_bytes(SPOILT[spoil](seen.read_bytes()))
    for _ in range(2):
        before = len(READ)
        pd.testing.assert_frame_equal(certify(folder(root), tmp_path), log)
    assert len(READ) - before <= 20


# --- killed, sharded -------------------------------------------------------------------------------------


def test_a_stopped_run_ends_with_the_same_bytes(root, tmp_path):
    certify(folder(root), tmp_path / "whole")
    for rows in (0, 10, 30):
        stopped(folder(root), tmp_path / "stopped", rows)
    certify(folder(root), tmp_path / "stopped")
    assert record(tmp_path / "stopped").name == record(tmp_path / "whole").name
    assert bytes_without_time(record(tmp_path / "stopped")) == bytes_without_time(record(tmp_path / "whole"))


def test_shards_are_joined_by_asking_for_all_images(root, tmp_path, monkeypatch):
    for k in range(4):
        certify(folder(root), tmp_path, ids=range(k, COUNT, 4))
    asked = rows_asked_for(monkeypatch)
    READ.clear()
    log = certify(folder(root), tmp_path)
    assert asked == [] and len(READ) <= 40 and log["idx"].tolist() == list(range(COUNT))
    pd.testing.assert_frame_equal(without_time(log), without_time(certify(folder(root), tmp_path / "alone")))


# --- the benchmark ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*are resized")
def test_the_benchmark_resumes_what_it_has_killed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(large, "DISTINCT", 12), monkeypatch.setattr(large, "CLASSES", 6)
    monkeypatch.setattr(large.os, "kill", lambda *_: stop_at(0)(0))
    large.write_folder(tmp_path, 96)
    with pytest.raises(KeyboardInterrupt):
        large.step(tmp_path, slice(None), 32)
    large.fill(tmp_path, 90)
    large.step(tmp_path, slice(None), 0)
    large.step(tmp_path, slice(0, None, 8), 0)
    killed, resumed, shard = map(json.loads, capsys.readouterr().out.splitlines())
    assert (killed["rows"], resumed["done before"], resumed["rows"], shard["rows"]) == (32, 90, 96, 12)
    assert len(fingerprint(ImageFolder(tmp_path / "val", T.ToTensor()))) == 64
