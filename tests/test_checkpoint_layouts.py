"""Checkpoints as others save them: every layout of the same weights loads, everything else is refused by what it is."""

import argparse
import collections
import gzip
import io
import pathlib
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib.datasets import Data
from lib.models import build_classifier, load_classifier
from lib.models.checkpoints import read_checkpoint

DIGITS = Data("digits", None, None, 10, tuple("0123456789"), (1, 8, 8), (0.3,), (0.4,))
EXTRA = {"epoch": 3, "best_acc": 91.2, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}}}


def weights(seed=0):
    torch.manual_seed(seed)
    return build_classifier("digits_cnn", DIGITS)[1].state_dict()


def save(content, tmp_path, name="file.pth"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def load(path, **options):
    return load_classifier(path, DIGITS, arch="digits_cnn", normalization="standard", **options)[1].state_dict()


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


# ---- weights that are no numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_that_are_not_finite_are_refused_with_the_first_name_and_how_many(value, dtype, tmp_path):
    state = {key: w.to(dtype) if w.is_floating_point() else w for key, w in weights().items()}
    state["features.4.running_var"][:2] = value  # the second of two, and a buffer
    state["fc.bias"][3] = value
    with pytest.raises(ValueError, match=r"in 2 of \d+ tensors, first in features.4.running_var \(2 of 64 numbers\)"):
        load(save(state, tmp_path))


def test_a_double_beyond_the_largest_float_is_not_finite_either(tmp_path):
    state = weights()
    state["fc.bias"] = torch.full((10,), 1e300, dtype=torch.float64)
    with pytest.raises(ValueError, match="infinite weights in 1 of"):
        load(save(state, tmp_path))


def test_weights_that_are_not_finite_are_refused_in_safetensors_too(tmp_path):
    save_file(weights() | {"fc.bias": torch.full((10,), float("nan"))}, tmp_path / "ours.safetensors")
    with pytest.raises(ValueError, match=r"first in fc\.bias"):
        load(tmp_path / "ours.safetensors")


def test_of_two_sets_of_weights_only_the_one_that_is_taken_must_be_finite(tmp_path):
    content = {"state_dict": weights(), "old": {"state_dict": {"fc.bias": torch.tensor([float("nan")])}}}
    assert same(load(save(content, tmp_path), entry="state_dict"), weights())


# ---- types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_whole_numbers_in_place_of_a_float_parameter_are_refused(dtype, tmp_path):
    state = weights() | {"fc.bias": torch.ones(10).to(dtype)}
    with pytest.raises(ValueError, match=f"1 wrong types: fc.bias is {dtype}, the network has torch.float32"):
        load(save(state, tmp_path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(dtype, tmp_path):
    state = {key: value.to(dtype) for key, value in weights().items()}
    found = load(save(state, tmp_path))
    assert all(torch.equal(value, state[key].to(value.dtype)) for key, value in found.items())


# ---- prefixes ----------------------------------------------------------------------------------------------------

PREFIXES = ["_orig_mod.", "model.", "net.", "backbone.", "module.model.", "model.module.", "anything.at.all.",
            "_orig_mod.module.1.", "1._orig_mod.", "module.module."]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_that_all_names_share_is_taken_off(prefix, tmp_path):
    state = {prefix + key: value for key, value in weights().items()}
    assert same(load(save(state, tmp_path)), weights())


@pytest.mark.parametrize("wrapper", ["_orig_mod", "module"])
def test_a_wrapper_around_a_part_of_the_network_is_taken_off(wrapper, tmp_path):
    state = {key.replace("features.", f"features.{wrapper}."): value for key, value in weights().items()}
    assert same(load(save(state, tmp_path)), weights())


def test_a_prefix_of_some_names_only_is_another_network(tmp_path):
    state = {("model." if key.startswith("features") else "") + key: value for key, value in weights().items()}
    with pytest.raises(ValueError, match=r"missing keys: features\.0\.weight"):
        load(save(state, tmp_path))


# ---- where the weights stand -------------------------------------------------------------------------------------

ENTRIES = ["state_dict", "model_state_dict", "model_state", "weights", "model", "net", "model_ema", "state_dict_ema",
           "my_own_name"]  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", [dict, collections.OrderedDict])
def test_the_only_weights_in_a_file_are_found_under_any_name(entry, kind, tmp_path):
    path = save({entry: kind(weights()), **EXTRA}, tmp_path)
    assert same(load(path), weights())
    assert same(load(save({"checkpoint": {entry: kind(weights())}, **EXTRA}, tmp_path)), weights())


@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema", "ema", "swa_model", "ema_state_dict"])
@pytest.mark.parametrize("first", [True, False])
def test_of_raw_and_averaged_weights_the_raw_ones_are_taken_and_it_is_said(averaged, first, tmp_path):
    pair = {averaged: weights(1), "state_dict": weights(0)}
    path = save(pair if first else dict(reversed(pair.items())), tmp_path)
    with pytest.warns(UserWarning, match=f"under 'state_dict', which were taken, and .* pass entry='{averaged}'"):
        assert same(load(path), weights(0))


def test_the_averaged_weights_can_be_asked_for_and_then_nothing_is_said(tmp_path):
    averaged = {"n_averaged": torch.tensor(7), **{f"module.{key}": value for key, value in weights(1).items()}}
    path = save({"model": weights(0), "model_ema": averaged}, tmp_path)  # as torch's AveragedModel saves them
    with warnings.catch_warnings(action="error"):
        assert same(load(path, entry="model_ema"), weights(1))


def test_a_wrong_entry_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"no weights under entry='ema', but under \['model', 'model_ema'\]"):
        load(save({"model": weights(), "model_ema": weights()}, tmp_path), entry="ema")


def test_two_networks_without_a_usual_name_are_not_guessed_at(tmp_path):
    path = save({"student": weights(0), "teacher": weights(1)}, tmp_path)
    with pytest.raises(ValueError, match=r"under \['student', 'teacher'\]: say which, for example entry='student'"):
        load(path)
    assert same(load(path, entry="teacher"), weights(1))


# ---- what stands beside the weights ------------------------------------------------------------------------------

SCALARS = [np.float64(91.2), np.float32(0.5), np.int64(3), np.bool_(True), np.str_("best"), np.float16(1)]


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_scalars_beside_the_weights_are_no_code(scalar, zipped, tmp_path):
    torch.save({"state_dict": weights(), "best": scalar}, tmp_path / "a", _use_new_zipfile_serialization=zipped)
    assert same(load(tmp_path / "a"), weights())


def test_numpy_1_called_its_scalars_by_another_name(tmp_path):
    content = io.BytesIO()
    torch.save({"state_dict": weights(), "best": np.float64(91.2)}, content, _use_new_zipfile_serialization=False)
    old = content.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert old != content.getvalue()
    (tmp_path / "old.pth").write_bytes(old)
    assert same(load(tmp_path / "old.pth"), weights())


OBJECTS = [argparse.Namespace(lr=0.1), collections.defaultdict(int), pathlib.Path("runs"), collections.deque([1]),
           torch.nn.Linear(2, 2), np.zeros(3)]  # fmt: skip


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: type(value).__name__)
def test_other_objects_beside_the_weights_are_refused_with_how_to_save_the_weights_alone(value, tmp_path):
    path = save({"state_dict": weights(), "args": value}, tmp_path)
    module = type(value).__module__.split(".")[0]
    with pytest.raises(
        ValueError, match=rf"run code \({module}\..*where it was made, save the weights alone: torch\.sav"
    ):
        load(path)


# ---- other kinds of files ----------------------------------------------------------------------------------------


def torchscript(path):
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.rand(1, 2)), path)


def exported(path):
    with zipfile.ZipFile(path, "w") as archive:  # the members that torch.export.save writes
        for name in ("k/data/weights/weight_0", "k/models/model.json", "k/archive_format"):
            archive.writestr(name, "")


def plain_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def tarred(path):
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("checkpoint.pth"))


OTHERS = {
    "TorchScript program": torchscript,
    "program of torch.export": exported,
    r"NumPy arrays \(.npz\)": lambda path: np.savez(path.open("wb"), a=np.zeros(3)),
    r"one NumPy array \(.npy\)": lambda path: np.save(path.open("wb"), np.zeros(3)),
    "zip archive of readme.txt": plain_zip,
    "zip archive of nothing": lambda path: zipfile.ZipFile(path, "w").close(),
    "tar archive": tarred,
    "compressed with gzip": lambda path: path.write_bytes(gzip.compress(b"weights")),
    "HDF5 file": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)),
    "Git LFS pointer": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_of_another_kind_is_called_what_it_is(kind, tmp_path):
    path = tmp_path / "checkpoint.pth.tar"
    OTHERS[kind](path)
    with pytest.raises(ValueError, match=f"is not a PyTorch checkpoint, but .*{kind}"):
        read_checkpoint(path)


def test_safetensors_are_known_by_their_content_whatever_the_file_is_called(tmp_path):
    save_file(weights(), tmp_path / "model.pth")
    assert same(load(tmp_path / "model.pth"), weights())
