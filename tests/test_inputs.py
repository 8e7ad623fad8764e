"""What a run reads from the disk: missed before the run starts, and a change of it makes the run out of date."""

import json
import os

import pytest
from tiny_notebook import WORK, Kit

from lib import run
from lib.config import (
    NOTEBOOKS,
    DenoisedSmoothing,
    DiffusionDenoising,
    RandomizedSmoothing,
    baseline_parameters,
    file_at,
    load_profile,
)
from lib.runner import inputs, jobs
from lib.runner.inputs import check_data, check_inputs, fingerprint
from lib.runner.jobs import plan


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty kit root, with the profiles of the project."""
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    monkeypatch.setattr(inputs, "PROJECT_ROOT", tmp_path)
    inputs.sha256.cache_clear()
    return tmp_path


def put(path, text="1"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def seen(config, source=""):
    """What the hash sees, as JSON."""
    return json.dumps(fingerprint(config, source))


# ---- folders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run_dir", "data_dir"])
@pytest.mark.parametrize("below", ["", "/a", "/a/b"])
def test_a_folder_that_is_a_file_or_lies_in_one_is_refused(name, below, root):
    put(root / "file")
    with pytest.raises(ValueError, match=rf"^{name} = 'file{below}': .*file is no folder; name one"):
        check_inputs(RandomizedSmoothing(**{name: f"file{below}"}))


def test_a_folder_that_leads_nowhere_is_refused(root):
    (root / "link").symlink_to(root / "gone")
    with pytest.raises(ValueError, match="link is no folder"):
        check_inputs(RandomizedSmoothing(run_dir="link"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_refused(root):
    (root / "locked").mkdir(mode=0o500)
    with pytest.raises(ValueError, match="nothing may be written to"):
        check_inputs(RandomizedSmoothing(run_dir="locked/run"))


def test_folders_need_not_exist(root):
    check_inputs(RandomizedSmoothing(run_dir="new/run", data_dir="new/data"))


def test_the_command_line_says_it_in_a_sentence_and_starts_nothing(root, capsys):
    put(root / "file")
    assert run.main(["01_randomized_smoothing", "-p", "run_dir", "file"]) == 2
    assert capsys.readouterr().err.startswith("lib.run: 01_randomized_smoothing: run_dir = 'file': ")


# ---- data sets -------------------------------------------------------------------------------------------------

PLACES = {"cifar10": "cifar-10-batches-py", "imagenet": "val", "folder": "test"}
NETWORKS = {"cifar10": "cifar_resnet20", "imagenet": "resnet50", "folder": "digits_cnn"}


@pytest.mark.parametrize("dataset", PLACES)
def test_a_data_set_that_is_not_there_is_refused_with_its_folder(dataset, root):
    config = RandomizedSmoothing(dataset=dataset, arch=NETWORKS[dataset])
    with pytest.raises(
        ValueError, match=rf"^dataset = '{dataset}': no {PLACES[dataset]}/.* in {root / 'data'}; .*data_dir"
    ):
        check_inputs(config)
    (root / "data" / PLACES[dataset]).mkdir(parents=True)
    (root / "data" / "train").mkdir()
    check_inputs(config)


def test_a_folder_with_val_instead_of_test_will_do(root):
    (root / "mine/val").mkdir(parents=True)
    (root / "mine/train").mkdir()
    check_inputs(RandomizedSmoothing(dataset="folder", data_dir="mine"))


@pytest.mark.parametrize("dataset", ["folder", "imagenet"])
def test_a_folder_without_training_images_is_refused_where_something_is_trained(dataset, root):
    for name in ("test", "val"):
        (root / "mine" / name).mkdir(parents=True)
    trained = [
        RandomizedSmoothing(dataset=dataset, data_dir="mine"),
        DenoisedSmoothing(dataset=dataset, data_dir="mine"),
    ]
    for config in trained:
        with pytest.raises(ValueError, match=r"no train/ in .*mine, and this notebook trains"):
            check_data(config)
    published = {"diffusion": "256x256_diffusion_uncond.pt", "classifier": "torchvision:resnet50", "baselines": ""}
    check_data(DiffusionDenoising(dataset=dataset, data_dir="mine", **published))
    with pytest.raises(ValueError, match="no train/"):
        check_data(DiffusionDenoising(dataset=dataset, data_dir="mine", **published | {"diffusion": "train"}))
    (root / "mine" / "train").mkdir()
    for config in trained:
        check_data(config)


@pytest.mark.parametrize("dataset", PLACES)
def test_another_file_of_the_data_is_seen(dataset, root):
    config = RandomizedSmoothing(dataset=dataset, arch=NETWORKS[dataset])
    image = put(root / "data" / PLACES[dataset] / "cat" / "0.png")
    if dataset == "cifar10":
        image = put(image.parent.with_name("data_batch_1"))
    before = seen(config)
    assert seen(config) == before
    if dataset != "imagenet":  # of which only the folders are looked at
        put(image, "another size")
        assert seen(config) != before
        before = seen(config)
        os.utime(image, (1, 1))
        assert seen(config) != before
    before = seen(config)
    put(image.with_name("1.png"))
    assert seen(config) != before


def test_a_hidden_file_beside_the_images_is_not_seen(root):
    config = RandomizedSmoothing(dataset="folder")
    put(root / "data/test/cat/0.png")
    before = seen(config)
    put(root / "data/test/.cache/0.png")
    put(root / "data/test/cat/.DS_Store.x")
    assert seen(config) == before


# ---- networks by their names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("arch", "cifar_resnet110"), ("classifier", "resnet50"), ("surrogates", ["VGG16"]), ("denoisers", ["memnet"])],
)
def test_a_network_for_the_images_of_another_data_set_is_refused(name, value, root):
    text = value if isinstance(value, str) else value[0]
    with pytest.raises(ValueError, match=rf"^{name} = '{text}': .*not those of dataset = 'digits'; known: digits_"):
        check_inputs(DenoisedSmoothing(**{name: value}))


def test_the_baselines_are_checked_too(root):
    (root / "data/test").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"^baselines = 'digit': .*the profiles are .*digits"):
        check_inputs(DiffusionDenoising(baselines="digit"))
    (root / "data/cifar-10-batches-py").mkdir()
    with pytest.raises(ValueError, match=r"^baselines = 'digits': arch = 'digits_cnn': .*of dataset = 'cifar10'"):
        check_inputs(DiffusionDenoising(dataset="cifar10"))
    check_inputs(DiffusionDenoising(dataset="cifar10", baselines="cifar10"))
    check_inputs(DiffusionDenoising(dataset="cifar10", baselines="", classifier="timm:resnet18"))


def test_the_profile_behind_the_baselines_is_seen_and_its_comments_are_not(root, monkeypatch):
    profile = put(root / "mine.yaml", "02_denoised_smoothing: {mse: '2 epochs of 64, adam 1e-3'}")
    config = DiffusionDenoising(baselines=str(profile))
    before = seen(config)
    put(profile, f"{profile.read_text()}  # a word")
    assert seen(config) == before
    put(profile, profile.read_text().replace("2 epochs", "3 epochs"))
    assert seen(config) != before and baseline_parameters(config).mse.startswith("3")


# ---- weights files ---------------------------------------------------------------------------------------------

FILES = [
    (RandomizedSmoothing, "classifier"), (DenoisedSmoothing, "classifier"), (DenoisedSmoothing, "denoiser"),
    (DenoisedSmoothing, "surrogates"), (DiffusionDenoising, "classifier"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_a_weights_file_that_is_missing_is_refused_and_its_content_is_seen(kind, name, root):
    config = kind(**{name: ["f.pth"] if name == "surrogates" else "f.pth"})
    with pytest.raises(ValueError, match=rf"^{name} = 'f\.pth': no file {root / 'f.pth'}"):
        check_inputs(config)
    missing = seen(config)
    put(root / "f.pth", "1")
    check_inputs(config)
    first = seen(config)
    state = (root / "f.pth").stat()
    put(root / "f.pth", "2")
    os.utime(root / "f.pth", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert len({missing, first, seen(config)}) == 3


def test_a_weights_file_that_was_only_touched_is_the_same(root):
    path = put(root / "f.pth")
    before = seen(config := DenoisedSmoothing(classifier="f.pth"))
    os.utime(path, (1, 1))
    assert seen(config) == before


def test_of_a_large_file_size_and_time_are_seen(root, monkeypatch):
    monkeypatch.setattr(inputs, "LARGE", 3)
    monkeypatch.setattr(inputs, "sha256", lambda *_: pytest.fail("read"))
    path = put(root / "f.pth", "four")
    before = seen(config := DenoisedSmoothing(classifier="f.pth"))
    os.utime(path, (1, 1))
    assert seen(config) != before


@pytest.mark.parametrize(("kind", "name"), [(RandomizedSmoothing, "classifier"), (DenoisedSmoothing, "denoiser")])
def test_there_is_a_file_for_each_noise_level(kind, name, root):
    config = kind(sigmas=[0.25, 0.5], **{name: "noise_{sigma:.2f}/best.pth"})
    put(root / "noise_0.25/best.pth")
    with pytest.raises(ValueError, match=r"no file .*/noise_0\.50/best\.pth"):
        check_inputs(config)
    put(root / "noise_0.50/best.pth")
    check_inputs(config)
    before = seen(config)
    put(root / "noise_0.50/best.pth", "other")
    assert seen(config) != before


@pytest.mark.parametrize(("text", "name"), [("n_{sigma}.pth", "n_0.5.pth"), ("{sigma:.2f}/f", "0.50/f"), ("f", "f")])
def test_a_path_is_filled_in_with_the_noise_level(text, name, root):
    assert file_at(text, 0.5) == root / name and file_at(f"{root}/{text}", 0.5) == root / name


@pytest.mark.parametrize("name", ["timm:resnet18.a1_in1k", "torchvision:resnet50@IMAGENET1K_V1", "digits_mlp", ""])
def test_a_library_or_an_architecture_is_no_file(name, root):
    check_inputs(DenoisedSmoothing(classifier=name))


# ---- diffusion models ------------------------------------------------------------------------------------------


def test_a_published_diffusion_model_is_looked_for_in_checkpoints_and_its_content_is_seen(root):
    config = DiffusionDenoising(diffusion="cifar10_uncond_50M_500K.pt")
    path = root / "checkpoints" / config.diffusion
    with pytest.raises(ValueError, match=rf"^diffusion = .*no file {path}"):
        check_inputs(config)
    put(path)
    check_inputs(config)
    before = seen(config)
    put(path, "other")
    assert seen(config) != before


def test_a_folder_of_a_diffusion_model_is_taken_and_seen(root):
    weights = put(root / "ddpm/unet/model.safetensors")
    check_inputs(config := DiffusionDenoising(diffusion=str(root / "ddpm")))
    before = seen(config)
    put(weights, "other")
    assert seen(config) != before


@pytest.mark.parametrize("text", ["trian", "cifar10.pt", "/nowhere/ddpm", "a/b/c", "./ddpm"])
def test_what_is_neither_a_folder_nor_an_id_is_refused(text, root):
    with pytest.raises(ValueError, match=rf"^diffusion = '{text}': .*(did you mean|known: train, )"):
        check_inputs(DiffusionDenoising(diffusion=text))
    check_inputs(DiffusionDenoising(diffusion="google/ddpm-cifar10-32"))


# ---- results and versions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["published/a.csv", "mine/a.tsv", "sub/deep/a.tsv", "one.csv"])
def test_results_that_the_notebook_names_are_seen(name, root):
    source = 'tables.published("a"); ROOT / "results/mine", read("results/sub/deep/a.tsv"), open("results/one.csv")'
    path = put(root / "results" / name)
    before = seen(config := RandomizedSmoothing(), source)
    put(path, "2")
    after = seen(config, source)
    path.unlink()
    assert len({before, after, seen(config, source)}) == 3


def test_other_results_are_not(root):
    before = seen(config := RandomizedSmoothing(), "results/mine")
    put(root / "results/throughput.csv")
    assert seen(config, "results/mine") == before


@pytest.mark.parametrize("package", inputs.PACKAGES)
def test_another_version_of_a_package_is_seen(package, root, monkeypatch):
    before, version = seen(RandomizedSmoothing()), inputs.version
    monkeypatch.setattr(inputs, "version", lambda name: "99" if name == package else version(name))
    assert seen(RandomizedSmoothing()) != before


def test_another_python_is_seen(root, monkeypatch):
    before = seen(RandomizedSmoothing())
    monkeypatch.setattr(inputs.platform, "python_version", lambda: "4.0")
    assert seen(RandomizedSmoothing()) != before


def test_the_hash_of_a_run_is_made_of_what_was_seen(tmp_path, tiny_is_known, monkeypatch):
    job = Kit(tmp_path, WORK).job()
    before = jobs.inputs_hash(job)
    monkeypatch.setattr(jobs, "fingerprint", lambda *_: "other")
    assert jobs.inputs_hash(job) != before


@pytest.mark.parametrize("notebook", NOTEBOOKS)
@pytest.mark.parametrize("profile", ["digits", "cifar10", "cifar10_cpu", "imagenet"])
def test_the_profiles_name_networks_of_their_data_sets(profile, notebook, root):
    for place in ("cifar-10-batches-py", "val", "train"):
        (root / "data" / place).mkdir(parents=True)
    put(root / "checkpoints/256x256_diffusion_uncond.pt")
    check_inputs(NOTEBOOKS[notebook](**load_profile(profile, notebook)))


# ---- before a kernel starts ------------------------------------------------------------------------------------

LATE = [  # what would only be met after trainings
    ("01", "levels", "255", "levels = 255: the pixels of dataset = 'digits' are multiples of 1/16; write 16"),
    ("02", "levels", "7", "write 16"),
    ("01", "n", "99999999999999999999", "a number below 2[*][*]53"),
    ("01", "images", str(2**53), "a number below 2[*][*]53"),
    ("02", "mse", "3 epochs of 4, adam 1e-3, sgd 1e-3 after 3", "mse = .*after must be below the 3 epochs"),
    ("02", "stab_mse", "['3 epochs of 4, adam 1e-3, sgd 1e-3 after 9']", "stab_mse = .*after must be below"),
    ("02", "stab", "3 epochs of 4, adam 0", "stab = .*expected 90 epochs of 256"),
    ("02", "mse", "3 epochs of 4, adam 0.00, sgd 1e-3 after 2", "mse = .*expected 90 epochs"),
    ("06", "stab", "3 epochs of 4, sgd 0e-3", "stab = .*expected 90 epochs"),
    ("04", "recipes", "[nope]", "unknown method: 'nope'"),
    ("04", "recipes", "[consistency lam x]", "lam x must be a number"),
    ("04", "drt", "gaussian", "write drt"),
    ("04", "pixeldp", "gaussian", "write pixeldp"),
    ("05", "device", "cuda:99", "there is no such device here; write -p device cpu"),
]


@pytest.mark.parametrize(("number", "name", "text", "message"), LATE)
def test_what_would_fail_after_a_training_is_refused_before_it(number, name, text, message):
    notebook = next(one for one in NOTEBOOKS if one.startswith(number))
    with pytest.raises(ValueError, match=f"(?s){message}"):
        plan([notebook], "digits", [(name, text)])
