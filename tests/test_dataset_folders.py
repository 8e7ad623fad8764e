"""Folders of images as people have them: hidden files, odd formats, damaged files, missing and surplus folders."""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import write_folder, write_images
from PIL import Image
from timm.data import ImageNetInfo
from torch.utils.data import TensorDataset

from lib.datasets import load_dataset, stack, training_images

SMALL, LARGE = (8, 8), (80, 70)
quiet = pytest.mark.filterwarnings("ignore:.*are resized")
both_sizes = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])


def png(path: Path, size=SMALL, mode="RGB", color: object = 51, **options) -> Path:
    """One image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (color,) * 3 if mode == "RGB" else color).save(path, "PNG", **options)
    return path


# --- what is skipped --------------------------------------------------------------------------------


@quiet
@both_sizes
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", [".ipynb_checkpoints/0000.png", "ant/.ipynb_checkpoints/0000.png", "ant/._0000.png",
                                  "ant/.deep/er/0.png", "._ant/0.png"])  # fmt: skip
def test_hidden_folders_and_files_are_skipped(name, split, size, tmp_path):
    before = load_dataset("folder", write_folder(tmp_path / ".cache" / "set", size))  # above the set dots are no matter
    png(tmp_path / ".cache" / "set" / split / name, size)
    after = load_dataset("folder", tmp_path / ".cache" / "set")
    assert (after.class_names, after.identity) == (("ant", "bee"), before.identity)
    assert (len(after.train), len(after.test)) == (6, 6)


@pytest.mark.parametrize("name", ["README.txt", "Thumbs.db", "ant/labels.csv", "ant/README", "ant/Thumbs.db"])
def test_files_that_are_no_images_are_skipped(name, tmp_path):
    (write_folder(tmp_path) / "test" / name).write_text("no image")
    assert len(load_dataset("folder", tmp_path).test) == 6


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("name, kind", [("9.gif", "GIF"), ("9.ico", "ICO"), ("nine", "PNG"), ("9.PNG.bak", "PNG")])
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_image_that_would_be_left_out_is_named(name, kind, split, tmp_path):
    path = write_folder(tmp_path) / split / "bee" / name
    Image.new("RGB", (16, 16)).save(path, kind)
    with pytest.raises(ValueError, match=f"bee/{name} would be left out: save it as .png, it is {kind}"):
        load_dataset("folder", tmp_path)


@both_sizes
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kept", [["ant", "bee"], ["ant"]])
def test_a_folder_inside_a_class_is_named(kept, split, size, tmp_path):
    for each in ("train", "test") if len(kept) > 1 else (split,):
        write_images(tmp_path, each, kept, size)
    png(tmp_path / split / "ant" / "red" / "0.png", size)
    png(tmp_path / "test" / "ant" / "red" / "0.png", size)
    with pytest.raises(ValueError, match=r"ant/red is a folder inside a class"):
        load_dataset("folder", tmp_path)


@both_sizes
def test_one_class_is_no_classification(size, tmp_path):
    write_images(tmp_path, "test", ["ant"], size)
    with pytest.raises(ValueError, match=r"needs at least two class folders; it has only \['ant'\]"):
        load_dataset("folder", tmp_path)


def test_train_and_test_with_other_classes_are_refused(tmp_path):
    write_images(tmp_path, "test", ["ant", "bee"], SMALL)
    write_images(tmp_path, "train", ["ant", "cow"], SMALL)
    with pytest.raises(ValueError, match=r"same classes, not \['bee', 'cow'\]"):
        load_dataset("folder", tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_class_is_named(split, tmp_path):
    (write_folder(tmp_path) / split / "cow").mkdir()
    with pytest.raises(FileNotFoundError, match=f"{split}/cow has no images: fill it, or delete it"):
        load_dataset("folder", tmp_path)


def test_a_train_folder_without_classes_is_named(tmp_path):
    (write_folder(tmp_path, splits=["test"]) / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="train has no class folders"):
        load_dataset("folder", tmp_path)


def test_a_folder_without_test_images_says_what_it_needs_and_has(tmp_path):
    write_folder(tmp_path, splits=["train"])
    with pytest.raises(FileNotFoundError, match=r"needs test/<class>/ or val/<class>/.*it has \['train'\]"):
        load_dataset("folder", tmp_path)


# --- which folder ------------------------------------------------------------------------------------


@pytest.mark.parametrize("test, used", [(["ant", "bee"], 6), ([], 2)], ids=["labelled", "a pile of files"])
def test_test_is_used_where_it_has_classes_and_val_otherwise(test, used, tmp_path):
    write_images(tmp_path, "val", ["ant", "bee"], SMALL, count=1)
    png(tmp_path / "test" / "0.png")
    if test:
        write_images(tmp_path, "test", test, SMALL)
    assert len(load_dataset("folder", tmp_path).test) == used


def test_the_same_image_twice_is_two_images(tmp_path):
    path = write_folder(tmp_path) / "test" / "bee" / "0000.png"
    path.with_name("copy.png").write_bytes(path.read_bytes())
    assert len(load_dataset("folder", tmp_path).test) == 7


@quiet
@both_sizes
def test_training_images_that_are_missing_say_where_to_put_them(size, tmp_path):
    data = load_dataset("folder", write_folder(tmp_path, size, ["test"]))
    assert data.train is None
    with pytest.raises(ValueError, match=f"folder has no training images: put them into {tmp_path}/train/<class>/"):
        training_images(data)


@pytest.mark.parametrize("train", [None, TensorDataset(torch.empty(0, 1, 8, 8), torch.empty(0))])
def test_training_images_are_those_of_the_data_if_any(train):
    digits = load_dataset("digits")
    assert training_images(digits) is digits.train
    with pytest.raises(ValueError, match="digits has no training images"):
        training_images(dataclasses.replace(digits, train=train))


# --- sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train, test", [((28, 28), (32, 32)), ((32, 28), (28, 32)), (LARGE, SMALL), (SMALL, LARGE)])
def test_train_and_test_of_other_sizes_are_named(train, test, tmp_path):
    write_images(tmp_path, "train", ["ant", "bee"], train)
    write_images(tmp_path, "test", ["ant", "bee"], test)
    with pytest.raises(ValueError, match=rf"one size.*train': \({train[0]}, {train[1]}\)") as error:
        load_dataset("folder", tmp_path)
    assert f"test': {test}" in str(error.value)


def test_large_images_of_any_size_go_together(tmp_path):
    write_images(tmp_path, "train", ["ant", "bee"], (80, 300))
    write_images(tmp_path, "test", ["ant", "bee"], LARGE)
    with pytest.warns(UserWarning, match="are resized"):
        assert load_dataset("folder", tmp_path).train[0][0].shape == (3, 224, 224)


def test_resizing_is_said_once_with_its_numbers(tmp_path):
    write_folder(tmp_path, (96, 128))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(2):
            load_dataset("folder", tmp_path)
    (line,) = [str(each.message) for each in said]
    assert "96 x 128" in line and "256" in line and "224 x 224" in line and f"{256 / 96:.2g} times" in line


def test_small_images_are_not_said_to_be_resized(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset("folder", write_folder(tmp_path))


@quiet
def test_loading_leaves_the_global_generator_alone(tmp_path):
    before = torch.get_rng_state()
    load_dataset("folder", write_folder(tmp_path, LARGE))
    assert torch.equal(before, torch.get_rng_state())


# --- modes: every pixel of 0.2 is 0.2, or its file is refused ------------------------------------------

REFUSED = ("I;16", "I", "F", "LAB")


def grey(mode: str, size: tuple[int, int]) -> Image.Image:
    """0.2 of white in each mode's own scale."""
    shape = size[::-1]
    if mode in REFUSED:
        of = {"I;16": np.uint16(51 * 257), "I": np.int32(51 * 257), "F": np.float32(0.2)}
        return Image.fromarray(np.full(shape, of[mode])) if mode in of else Image.new("LAB", size)
    return Image.new("L", size, 51).convert(mode)


@quiet
@both_sizes
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "CMYK", *REFUSED])
def test_a_pixel_keeps_its_value_in_every_mode_or_the_file_is_refused(mode, size, tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / "test" / name).mkdir(parents=True)
        grey(mode, size).save(tmp_path / "test" / name / "0.tif")
    if mode in REFUSED:
        with pytest.raises(ValueError, match=rf"ant/0.tif has pixels of mode {mode}, whose white is unknown: save it"):
            load_dataset("folder", tmp_path)
    else:
        images, _ = stack(load_dataset("folder", tmp_path).test, [0, 1])
        assert torch.allclose(images, torch.tensor(0.2), atol=1e-6)


def test_black_and_white_images_are_0_and_1(tmp_path):
    path = write_folder(tmp_path) / "test" / "ant" / "0000.png"
    image = Image.new("1", SMALL)
    image.putpixel((3, 5), 1)
    image.save(path)
    pixels = load_dataset("folder", tmp_path).test[0][0]
    assert pixels.sum() == 3 and (pixels[:, 5, 3] == 1).all()


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("make", [
    {"mode": "RGBA", "color": (9, 9, 9, 254)}, {"mode": "LA", "color": (9, 0)}, {"color": 9, "transparency": (9, 9, 9)},
    {"mode": "L", "color": 9, "transparency": 9}, {"mode": "P", "color": 0, "transparency": 0},
], ids=str)  # fmt: skip
def test_colours_that_nobody_sees_are_refused(make, split, tmp_path):
    png(write_folder(tmp_path) / split / "bee" / "0001.png", **make)
    with pytest.raises(ValueError, match=r"bee/0001.png .*transparent pixels.*put it on a background"):
        load_dataset("folder", tmp_path)


# --- damaged files -------------------------------------------------------------------------------------


def cut(path: Path, kind: str, size: tuple[int, int]) -> Path:
    """A file with the first half of an image."""
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name, kind", [("0002.png", "PNG"), ("1.jpg", "JPEG"), ("1.webp", "WEBP"), ("1.bmp", "BMP")])
def test_a_truncated_small_image_is_named_when_it_is_loaded(name, kind, split, tmp_path):
    cut(write_folder(tmp_path, (32, 32)) / split / "bee" / name, kind, (32, 32))
    with pytest.raises(ValueError, match=f"{split}/bee/{name} cannot be read as an image"):
        load_dataset("folder", tmp_path)


@quiet
@pytest.mark.parametrize("name, kind", [("0002.png", "PNG"), ("0003.jpg", "JPEG")])
def test_a_truncated_large_image_is_named_when_it_is_used(name, kind, tmp_path):
    cut(write_folder(tmp_path, LARGE, ["test"]) / "test" / "ant" / name, kind, LARGE)
    data = load_dataset("folder", tmp_path)
    bad = [Path(path).name for path, _ in data.test.samples].index(name)
    with pytest.raises(ValueError, match=f"ant/{name} cannot be read as an image"):
        stack(data.test, range(bad + 1))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"version https://git-lfs.github.com/spec/v1"])
@both_sizes
def test_a_file_that_is_only_named_as_an_image_is_named(content, size, tmp_path):
    (write_folder(tmp_path, size) / "test" / "ant" / "0000.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"ant/0000.png cannot be read as an image"):
        load_dataset("folder", tmp_path)


# --- ImageNet ------------------------------------------------------------------------------------------


def imagenet(root: Path, names: list[str]) -> Path:
    """val/<name>/0.png for each name: one file, linked a thousand times."""
    file = png(root / "0.png")
    for name in names:
        (root / "val" / name).mkdir(parents=True, exist_ok=True)
        (root / "val" / name / "0.png").hardlink_to(file)
    return root


WNIDS = ImageNetInfo().label_names()


def test_imagenets_class_folders_are_its_wnids(tmp_path):
    data = load_dataset("imagenet", imagenet(tmp_path, WNIDS))
    assert data.class_names == tuple(WNIDS) and data.test[7][1] == 7 and data.image_shape == (3, 224, 224)


def test_the_folders_of_imagenetv2_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"folders 0 … 999 of ImageNetV2: give k the name of the k-th, 0 is n01440764"):
        load_dataset("imagenet", imagenet(tmp_path, [str(k) for k in range(1000)]))


@pytest.mark.parametrize("names", [WNIDS[:2], WNIDS[:999], [*WNIDS[:999], "cat"], [*WNIDS, "cat"], []], ids=len)
def test_other_class_folders_are_not_imagenets(names, tmp_path):
    (tmp_path / "val").mkdir(parents=True)
    with pytest.raises(ValueError, match=rf"1000 wnids; .* has {len(names)} class folders;.* Load it as 'folder'"):
        load_dataset("imagenet", imagenet(tmp_path, names))
