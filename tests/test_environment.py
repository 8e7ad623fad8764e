"""What a run was made with; and the one list of dependencies that every way of installing follows."""

import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lib.machine.provenance import describe, git_state

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}  # conda's name: the package index's


# ---- facts -----------------------------------------------------------------------------------------------------


def test_the_facts_hold_the_versions_that_are_imported():
    import numpy

    facts = describe("cpu")
    assert (facts["numpy"], facts["device"]) == (numpy.__version__, "cpu")
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))


def test_the_facts_are_gathered_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    facts = describe()
    assert (facts["git_commit"], facts["git_dirty"]) == (None, None)


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit."""
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    return tmp_path


def test_a_clean_checkout_is_described_by_its_commit(checkout):
    assert git_state(checkout) == {"git_commit": git(checkout, "rev-parse", "HEAD"), "git_dirty": False}


@pytest.mark.parametrize("name", ["a.py", "new.py"])
def test_a_changed_or_new_file_makes_a_checkout_dirty(name, checkout):
    (checkout / name).write_text("2")
    assert git_state(checkout)["git_dirty"] is True


def test_a_copy_inside_another_repository_has_no_commit_of_its_own(checkout):
    (checkout / "kit").mkdir()
    assert git_state(checkout / "kit") == {"git_commit": None, "git_dirty": None}


# ---- one list of dependencies ----------------------------------------------------------------------------------


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def wanted():
    """Name -> version range, as pyproject.toml says, optional groups included."""
    groups = project().get("optional-dependencies", {}).values()
    lines = [*project()["dependencies"], *(line for group in groups for line in group)]
    return {canonicalize_name(one.name): one.specifier for one in map(Requirement, lines)}


def conda():
    """What environment.yml asks of conda, and of pip."""
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = [line for part in lines if isinstance(part, dict) for line in part["pip"]]
    return [line for line in lines if isinstance(line, str)], pip


def pinned():
    """Name -> version, as constraints.txt says."""
    lines = (line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    pairs = [re.fullmatch(r"([\w.-]+)==([\w.+!]+)(\s*;.*)?", line) for line in lines if line]
    assert all(pairs), "constraints.txt holds a line that is not name==version"
    return {canonicalize_name(pair[1]): pair[2] for pair in pairs}


def test_conda_users_install_the_project_itself_with_all_its_groups_at_the_pinned_versions():
    groups = ",".join(project()["optional-dependencies"])
    assert conda()[1] == ["-c constraints.txt", f"-e .[{groups}]"]


def test_conda_itself_brings_nothing_but_a_python_that_pyproject_allows_and_pip():
    packages, _ = conda()
    assert packages == [f"python{project()['requires-python']}", "pip"]


def test_every_dependency_is_pinned_within_its_range():
    pins = pinned()
    assert {name: specifier for name, specifier in wanted().items() if name not in pins} == {}
    assert {name: pins[name] for name, specifier in wanted().items() if pins[name] not in specifier} == {}


def test_the_makefile_installs_the_project_with_all_its_groups_at_the_pinned_versions():
    groups = ",".join(project()["optional-dependencies"])
    lines = (ROOT / "Makefile").read_text().replace("\\\n", " ").splitlines()
    installing = [line for line in lines if "pip install" in line]
    assert installing and all("-c constraints.txt" in line and f".[{groups}]" in line for line in installing)


# ---- the commands ----------------------------------------------------------------------------------------------


def recipe(target):
    """The commands of a target of the Makefile."""
    lines = (ROOT / "Makefile").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(f"{target}:"))
    return "\n".join(itertools.takewhile(lambda line: line.startswith("\t"), lines[first + 1 :]))


def test_clean_leaves_the_runs_which_have_a_word_of_their_own():
    assert "runs" not in recipe("clean") and recipe("clean-runs").split() == ["rm", "-rf", "runs"]


@pytest.mark.parametrize("check", ["ruff check .", "ruff format --check .", "mypy", "--nbval", "--dist loadfile"])
def test_make_test_checks(check):
    assert check in recipe("test")


def test_an_installation_whose_packages_do_not_fit_together_is_not_taken_for_finished():
    commands = recipe("$(INSTALLED)").splitlines()
    assert "check" in commands[-3] and "import torchvision" in commands[-2] and commands[-1] == "\t@touch $@"


def test_the_public_ci_calls_the_two_commands_of_the_readme():
    job = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make", "make test"]


def test_the_types_of_lib_are_packaged():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert (ROOT / "lib/py.typed").is_file() and "py.typed" in data["lib"]
