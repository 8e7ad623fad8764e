"""Parameters: the defaults are one thing in three places, and nothing wrong gets through."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from lib import config
from lib.config import NOTEBOOKS, Common, RandomizedSmoothing, load_profile, parse
from lib.config.fields import parameter

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


@pytest.mark.parametrize("value", [0.0, -0.25])
def test_every_sigma_is_positive_and_the_message_says_which_is_not(value):
    with pytest.raises(ValueError, match=r"^sigmas\[1\] = .*greater than 0"):
        RandomizedSmoothing(sigmas=[0.25, value])


@pytest.mark.parametrize("value", [0.25, "0.25", [], None])
def test_a_list_is_expected_where_there_are_many(value):
    with pytest.raises(ValueError, match=r"^sigmas = .*list of float expected"):
        RandomizedSmoothing(sigmas=value)


def test_a_list_is_kept_as_a_tuple_of_floats():
    assert RandomizedSmoothing(sigmas=[1, 0.5]).sigmas == (1.0, 0.5)


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
    ],
)
def test_a_profile_is_refused(text, message, profile):
    with pytest.raises(ValueError, match=r"profile|section|parameter") as caught:
        load_profile(profile(text), "01_randomized_smoothing")
    assert message in str(caught.value)


def test_a_missing_profile_is_answered_with_those_that_exist():
    with pytest.raises(FileNotFoundError, match=r"'digit'.*cifar10, cifar10_cpu, digits, imagenet"):
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
