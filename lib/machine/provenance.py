"""What a run was made with: versions, device, git state."""

from __future__ import annotations

import platform
import subprocess
from importlib import import_module, metadata
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchvision", "timm", "diffusers", "safetensors", "numpy", "scipy", "papermill")

Facts = dict[str, str | bool | None]


def describe(device: str | None = None) -> Facts:
    """Versions, platform, the name of the device and the state of git, ready for JSON.

    `device` as torch writes it ("cpu", "cuda:1"); None leaves its name out, and torch unimported. What is not
    installed, or not a git checkout, is None.
    """
    facts: Facts = {"python": platform.python_version(), "platform": f"{platform.system()}-{platform.machine()}"}
    facts |= {name: version(name) for name in PACKAGES}
    if device is not None:
        facts |= {"device": device, "device_name": device_name(device)}
    return facts | git_state()


def version(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def device_name(device: str) -> str:
    """The product's name of a device, such as NVIDIA H100; of a CPU, its architecture."""
    if not device.startswith("cuda"):
        return platform.processor() or platform.machine()
    return import_module("torch").cuda.get_device_name(device)


def git_state(root: Path = PROJECT_ROOT) -> Facts:
    """The commit of the checkout at `root`, and whether files differ from it; None for both without git."""
    here = git(root, "rev-parse", "--show-toplevel")
    if here is None or Path(here).resolve() != root.resolve():  # unpacked inside another project's repository
        return {"git_commit": None, "git_dirty": None}
    commit = git(root, "rev-parse", "--verify", "HEAD")
    return {"git_commit": commit, "git_dirty": git(root, "status", "--porcelain") != ""}


def git(root: Path, *words: str) -> str | None:
    """What a git command answers, or None where it fails or git is missing."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
