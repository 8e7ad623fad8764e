"""Parameters: the defaults are one thing in three places, and nothing wrong gets through."""

import dataclasses
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from lib import config
from lib.config import (
    NOTEBOOKS,
    Common,
    DenoisedSmoothing,
    DiffusionDenoising,
    RandomizedSmoothing,
    load_profile,
    parse,
)
from lib.config.fields import parameter
from lib.machine.provenance import PROJECT_ROOT
from lib.words import LARGEST_KEY

PROFILES = sorted(path.stem for path in config.PROFILES.glob("*.yaml"))


@pytest.fixture
def profile(tmp_path):
    """Writes a profile and returns its path."""

    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return write


# ---- one value -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [True, 1000.0, "1000", None, [1000]])
def test_a_whole_number_must_be_an_int(value):
    with pytest.raises(ValueError, match=r"^n = .*int expected"):
        RandomizedSmoothing(n=value)


@pytest.mark.parametrize("value", [True, "0.001", None])
def test_a_float_must_be_a_number(value):
    with pytest.raises(ValueError, match=r"^alpha = .*float expected"):
        RandomizedSmoothing(alpha=value)


def test_an_int_is_taken_for_a_float_and_becomes_one():
    lr = RandomizedSmoothing(lr=1).lr
    assert (lr, type(lr)) == (1.0, float)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5])
def test_alpha_lies_strictly_between_0_and_1(value):
    with pytest.raises(ValueError, match=r"^alpha = .*(greater than 0|less than 1)"):
        RandomizedSmoothing(alpha=value)


@pytest.mark.parametrize("name", ["lr", "alpha"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(name, value):
    with pytest.raises(ValueError, match=rf"^{name} = (nan|inf): a finite number"):
        RandomizedSmoothing(**{name: value})


@pytest.mark.parametrize("name", ["n0", "n", "images", "skip", "batch_size", "epochs", "train_batch"])
def test_counts_are_at_least_1(name):
    RandomizedSmoothing(**{name: 1})
    with pytest.raises(ValueError, match=rf"^{name} = 0: must be at least 1"):
        RandomizedSmoothing(**{name: 0})


@pytest.mark.parametrize(("text", "value", "rows"), [("250", 250, 250), ("auto", "auto", 100)])
def test_a_batch_size_is_a_number_or_auto(text, value, rows, profile):
    assert parse(RandomizedSmoothing, "batch_size", text) == value
    assert load_profile(profile(f"common: {{batch_size: {text}}}"), "01_randomized_smoothing") == {"batch_size": value}
    made = RandomizedSmoothing(batch_size=value)
    assert made.batch_size == value and made.at_once == rows


@pytest.mark.parametrize("value", ["fast", "250", "", 1.5, None, True])
def test_any_other_batch_size_is_refused_with_what_to_write(value):
    with pytest.raises(ValueError, match=r"^batch_size = .*int or 'auto' expected"):
        RandomizedSmoothing(batch_size=value)


@pytest.mark.parametrize("value", [0.0, -0.25])
def test_every_sigma_is_positive_and_the_message_says_which_is_not(value):
    with pytest.raises(ValueError, match=r"^sigmas\[1\] = .*greater than 0"):
        RandomizedSmoothing(sigmas=[0.25, value])


@pytest.mark.parametrize("value", [0.25, "0.25", [], None])
def test_a_list_is_expected_where_there_are_many(value):
    with pytest.raises(ValueError, match=r"^sigmas = .*list of float expected"):
        RandomizedSmoothing(sigmas=value)


def test_a_list_is_kept_as_a_tuple_of_floats():
    assert RandomizedSmoothing(sigmas=[0.5, 1]).sigmas == (0.5, 1.0)


@pytest.mark.parametrize("kind", [kind for kind in NOTEBOOKS.values() if hasattr(kind, "sigmas")])
@pytest.mark.parametrize(
    ("value", "fault", "right"),
    [
        ([0.5, 0.25], "must ascend", [0.25, 0.5]),
        ([0.25, 0.5, 0.5], "be there once each", [0.25, 0.5]),
        ([1, 1.0], "once", [1.0]),
    ],
)
def test_noise_levels_are_distinct_and_ascend_and_the_message_says_what_to_write(kind, value, fault, right):
    with pytest.raises(ValueError, match=rf"^sigmas = .*{fault}.*; write {re.escape(str(right))}$"):
        kind(sigmas=value)


@pytest.mark.parametrize("name", ["surrogates", "denoisers", "stab_mse"])
def test_what_is_compared_or_takes_turns_is_there_once(name):
    first = getattr(DenoisedSmoothing(), name)[0]
    with pytest.raises(ValueError, match=rf"^{name} = .*once each; write \['{first}'\]"):
        DenoisedSmoothing(**{name: [first, first]})


def test_radii_to_stop_at_ascend_and_the_message_says_what_to_write():
    with pytest.raises(ValueError, match=r"write 'at radii 0 0.5'$"):
        RandomizedSmoothing(stop="at radii 0.5 0 0.5")


# ---- names -----------------------------------------------------------------------------------------------------

WRONG_NAMES = [
    (RandomizedSmoothing, "dataset", "mnist", "known: digits, cifar10, imagenet, folder"),
    (RandomizedSmoothing, "dataset", "Cifar10", "did you mean 'cifar10'"),
    (RandomizedSmoothing, "arch", "digit_cnn", "did you mean 'digits_cnn'"),
    (RandomizedSmoothing, "arch", "model.pth", "known: digits_cnn"),
    (RandomizedSmoothing, "schedule", "Cosine", "did you mean 'cosine'"),
    (RandomizedSmoothing, "normalization", "centre", "did you mean 'center'"),
    (DenoisedSmoothing, "denoisers[1]", "nope", "known: cifar_dncnn|known: digits_dncnn"),
    (DenoisedSmoothing, "surrogates[1]", "digits_mpl", "did you mean 'digits_mlp'"),
    (DenoisedSmoothing, "classifier", "resnet5", "did you mean 'resnet50'"),
    (DiffusionDenoising, "timestep", "closest", "known: nearest, fractional"),
]


@pytest.mark.parametrize(("kind", "name", "value", "advice"), WRONG_NAMES)
def test_a_wrong_name_is_refused_with_the_right_ones(kind, name, value, advice):
    field = name.removesuffix("[1]")
    values = [getattr(kind(), field)[0], value] if field != name else value
    with pytest.raises(ValueError, match=rf"^{re.escape(name)} = '{value}': .*({advice})"):
        kind(**{field: values})


@pytest.mark.parametrize("value", ["timm:resnet18.a1_in1k", "torchvision:resnet50", "VGG16"])
def test_a_library_s_network_is_an_architecture(value):
    assert RandomizedSmoothing(arch=value).arch == DenoisedSmoothing(surrogates=[value]).surrogates[0] == value


@pytest.mark.parametrize("path", ["a.pth", "a/{sigma}/b.pth.tar", "a/{sigma:.2f}/b", ""])
def test_a_file_may_depend_on_the_noise_level(path):
    assert RandomizedSmoothing(classifier=path).classifier == DenoisedSmoothing(denoiser=path).denoiser == path


@pytest.mark.parametrize("path", ["{}", "{noise}", "{sigma", "sigma}", "{sigma:d}", "{{sigma}}", "{sigma!r}", "{0}"])
def test_a_file_depends_on_nothing_else(path):
    with pytest.raises(ValueError, match=r"^classifier = .*\{sigma\} becomes the noise level"):
        RandomizedSmoothing(classifier=path)


def test_names_are_known_without_importing_torch():
    script = "import sys, lib.config, lib.runner.jobs; sys.exit(any(name in sys.modules for name in ('torch', 'timm')))"
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[1]).returncode == 0


# ---- messages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(DiffusionDenoising)])
def test_a_long_value_is_shortened_in_the_message(name):
    with pytest.raises(ValueError, match=rf"^{name}\b") as caught:
        DiffusionDenoising(**{name: np.zeros((99, 99))})
    assert len(str(caught.value)) < 250 and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["x" * 999, {"a": [1] * 999}, b"1" * 999])
def test_other_long_values_are_shortened_too(value):
    with pytest.raises(ValueError, match=r"^alpha = ") as caught:
        RandomizedSmoothing(alpha=value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "advice"),
    [("n: 1e3", "write 1000 without"), ("n: '1000'", "write 1000 without"), ("n: 1.0e+3", "write 1000$"),
     ("alpha: 1e-3", "write 0.001 without"), ("lr: '1'", "write 1 without"), ("images: 1e1", "write 10 without")],
)  # fmt: skip
def test_a_number_of_the_wrong_type_is_answered_with_what_to_write_at_once(text, advice):
    with pytest.raises(ValueError, match=advice) as caught:
        RandomizedSmoothing(**yaml.safe_load(text))
    name, value = next(iter(yaml.safe_load(text))), re.search(r"write (\S+)", str(caught.value))[1]
    RandomizedSmoothing(**yaml.safe_load(f"{name}: {value}"))


@pytest.mark.parametrize("value", ["2.5e0", 2.5, "nan", "inf", "many", [1000], None, True])
def test_where_no_whole_number_is_meant_none_is_advised(value):
    with pytest.raises(ValueError, match=r"^n = ") as caught:
        RandomizedSmoothing(n=value)
    assert "write" not in str(caught.value)


def test_a_seed_is_a_key_of_the_noise():
    assert RandomizedSmoothing(seed=LARGEST_KEY).seed == 2**32 - 1
    with pytest.raises(ValueError, match=rf"^seed = {2**32}: must be at most {2**32 - 1}"):
        RandomizedSmoothing(seed=2**32)


@pytest.mark.parametrize("value", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_a_device_is_one_that_torch_knows(value):
    with pytest.raises(ValueError, match=r"^device = .*expected cpu, mps, cuda:0"):
        RandomizedSmoothing(device=value)


@pytest.mark.parametrize("value", ["", "  "])
def test_text_is_not_empty(value):
    with pytest.raises(ValueError, match=r"^run_dir = "):
        RandomizedSmoothing(run_dir=value)


def test_yaml_s_text_1e_3_is_refused_with_what_to_write():
    value = yaml.safe_load("alpha: 1e-3")["alpha"]
    with pytest.raises(ValueError, match=r"^alpha = '1e-3': .*write 0\.001 .*1\.0e-3"):
        RandomizedSmoothing(alpha=value)


def test_parameters_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RandomizedSmoothing().n = 5


@pytest.mark.parametrize("kind", NOTEBOOKS.values())
def test_every_parameter_has_a_help_text(kind):
    assert [field.name for field in dataclasses.fields(kind) if not field.metadata.get("help")] == []


def test_a_new_notebook_is_one_dataclass():
    @dataclass(frozen=True)
    class Mine(Common):
        layers: tuple[int, ...] = parameter((1, 2), "layers", min=1, max=9)
        fast: bool = parameter(False, "skip the slow part")

    assert (Mine(layers=[3], fast=True).layers, Mine().n) == ((3,), 10_000)
    with pytest.raises(ValueError, match=r"^layers\[0\] = 10: must be at most 9"):
        Mine(layers=[10])
    with pytest.raises(ValueError, match=r"^fast = 1: bool expected"):
        Mine(fast=1)


def test_the_variables_of_a_notebook_become_its_parameters():
    cell = {**dataclasses.asdict(RandomizedSmoothing()), "n": 7, "unrelated": object()}
    assert RandomizedSmoothing.of(cell) == RandomizedSmoothing(n=7)


def test_a_variable_that_the_notebook_lacks_is_named():
    with pytest.raises(ValueError, match="no variable 'alpha'"):
        RandomizedSmoothing.of({name: 0 for name in config.field_names(RandomizedSmoothing) if name != "alpha"})


PARAMETERS = "\n".join(f"{name} = {value!r}" for name, value in dataclasses.asdict(RandomizedSmoothing()).items())


def of_cells(*cells):
    """The parameters of a notebook whose cells were run in this order."""
    variables = {"In": ["", *cells]}
    for cell in cells:
        exec(cell, variables)
    return RandomizedSmoothing.of(variables)


def test_a_name_that_the_parameters_cell_sets_and_nobody_reads_is_refused():
    with pytest.raises(ValueError, match="unknown parameter: 'imgaes'; did you mean 'images'"):
        of_cells(f"{PARAMETERS}\nimgaes: int = 20")


def test_only_the_last_run_of_the_parameters_cell_counts_and_only_its_names():
    typo = f"{PARAMETERS}\nimgaes = 20"
    assert of_cells(typo, f"{PARAMETERS}\nimages = 20").images == 20
    assert of_cells(PARAMETERS, "n = 7", "image, label = 1, 2", "sigma = max(sigmas)").n == 7


# ---- folders ---------------------------------------------------------------------------------------------------


def test_folders_start_at_kit_root_where_it_is_set(monkeypatch, tmp_path):
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    assert RandomizedSmoothing(run_dir="runs/a").run_path == tmp_path / "runs/a"
    assert RandomizedSmoothing(data_dir="d").data_path == tmp_path / "d"


def test_folders_start_at_the_project_otherwise(monkeypatch):
    monkeypatch.delenv("KIT_ROOT")
    assert RandomizedSmoothing().run_path == Path(__file__).parents[1] / "runs/digits"


def test_an_absolute_folder_stays_where_it_is(tmp_path):
    assert RandomizedSmoothing(run_dir=str(tmp_path)).run_path == tmp_path


# ---- the command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("alpha", "1e-3", 0.001),
        ("alpha", "0.5", 0.5),
        ("n", "1_000", 1000),
        ("n", "010", 10),  # octal in YAML 1.1
        ("n", "1000.0", 1000.0),
        ("sigmas", "[0.25, 5e-1, 1]", [0.25, 0.5, 1]),
        ("run_dir", "025", "025"),
        ("dataset", "no", "no"),  # false in YAML 1.1
    ],
)
def test_a_word_of_the_command_line_reads_as(name, text, value):
    read = parse(RandomizedSmoothing, name, text)
    assert (read, type(read)) == (value, type(value))


def test_text_that_is_no_yaml_is_refused():
    with pytest.raises(ValueError, match=r"^sigmas = '\[0.25': not YAML"):
        parse(RandomizedSmoothing, "sigmas", "[0.25")


def test_an_unknown_name_is_refused_with_the_one_that_was_meant():
    with pytest.raises(ValueError, match="unknown parameter: 'sigma'; did you mean 'sigmas'"):
        parse(RandomizedSmoothing, "sigma", "0.25")


# ---- profiles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_digits_profile_says_every_default(name):
    values = load_profile("digits", name)
    assert NOTEBOOKS[name](**values) == NOTEBOOKS[name]()
    assert sorted(values) == sorted(config.field_names(NOTEBOOKS[name]))


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_valid_for_every_notebook_and_writes_to_its_own_folder(name):
    made = [kind(**load_profile(name, stem)) for stem, kind in NOTEBOOKS.items()]
    assert {one.run_dir for one in made} == {f"runs/{name}"}


def test_the_profiles_of_the_papers_keep_the_papers_certification():
    for name, skip in (("cifar10", 20), ("imagenet", 100)):
        made = RandomizedSmoothing(**load_profile(name, "01_randomized_smoothing"))
        assert (made.n0, made.n, made.alpha, made.skip) == (100, 100_000, 0.001, skip)


def test_the_notebook_s_own_section_wins_over_common(profile):
    path = profile("common: {n: 5, n0: 6}\n01_randomized_smoothing: {n: 7}")
    assert load_profile(path, "01_randomized_smoothing") == {"n": 7, "n0": 6}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("common: {sigmass: 1}", "'sigmass'"),
        ("common: {alpa: 0.1}", "did you mean 'alpha'"),
        ("common: {lr: 0.1}", "section common: 'lr'"),
        ("01_randomised_smoothing: {n: 1}", "did you mean '01_randomized_smoothing'"),
        ("n: 1000", "expected sections"),
        ("", "expected sections"),
        ("common: {n: [", "not YAML"),
        ("common:\n  n: 5\ncommon:\n  seed: 7", "'common' is there twice, in lines 1 and 3: keep one"),
        ("common:\n  n: 5\n  seed: 7\n  n: 6", "'n' is there twice, in lines 2 and 4: keep one"),
        ("common: {n: 5, 'n': 5}", "'n' is there twice, in lines 1 and 1"),
        ("common: {n: 5}\n01_randomized_smoothing: {lr: 1.0, lr: 1.0}", "'lr' is there twice"),
        ("common:\n  n: 010", "line 2: 010 is another number"),
        ("common: {n: 1:30}", "line 1: 1:30 is another number"),
        ("common: {alpha: 1:30.5}", "line 1: 1:30.5 is another number"),
    ],
)
def test_a_profile_is_refused(text, message, profile):
    path = profile(text)
    with pytest.raises(ValueError, match=r"mine\.yaml") as caught:
        load_profile(path, "01_randomized_smoothing")
    assert message in str(caught.value)


def test_a_profile_that_is_not_utf_8_is_refused_by_name(profile):
    path = profile("")
    path.write_bytes("common: {run_dir: é}".encode("latin-1"))
    with pytest.raises(ValueError, match=r"mine\.yaml: not UTF-8"):
        load_profile(path, "01_randomized_smoothing")


def test_a_key_that_a_merge_brings_may_be_set_again(profile):
    path = profile("common: &all {n: 5, n0: 6}\n01_randomized_smoothing: {<<: *all, n: 7}")
    assert load_profile(path, "01_randomized_smoothing") == {"n": 7, "n0": 6}


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("-5", -5), ("1_000", 1000), ("0x10", 16), ("0.5", 0.5), (".5", 0.5)]
)
def test_plain_numbers_of_a_profile_are_what_they_look_like(text, value, profile):
    assert load_profile(profile(f"common: {{seed: {text}}}"), "01_randomized_smoothing") == {"seed": value}


def test_a_missing_profile_is_answered_with_those_that_exist():
    names = ", ".join(sorted(path.stem for path in (PROJECT_ROOT / "profiles").glob("*.yaml")))
    with pytest.raises(FileNotFoundError, match=f"'digit'.*{names}"):
        load_profile("digit", "01_randomized_smoothing")


def test_an_unknown_notebook_is_refused():
    with pytest.raises(ValueError, match="unknown notebook: '01_randomised_smoothing'; did you mean"):
        load_profile("digits", "01_randomised_smoothing")


# ---- words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["after n", "at radii 0.5", "at radii 0 0.25 1", "within 0.05", "within 1"])
def test_ways_to_stop(stop):
    assert RandomizedSmoothing(stop=stop).stop == stop


@pytest.mark.parametrize(
    "stop", ["at radii", "at radii 0.5 0.25", "at radii 0.5 0.5", "within 0", "within 0.0", "at -1"]
)
def test_ways_to_stop_that_make_no_sense_are_refused(stop):
    with pytest.raises(ValueError, match=r"^stop = "):
        RandomizedSmoothing(stop=stop)


@pytest.mark.parametrize("compute", ["int8", "folded", "float32, compiled, folded", "float32, folded, folded"])
def test_ways_to_compute_that_make_no_sense_are_refused(compute):
    with pytest.raises(ValueError, match=r"^compute = "):
        RandomizedSmoothing(compute=compute)
