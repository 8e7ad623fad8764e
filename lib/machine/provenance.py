"""What a run was made with: versions, device, git state; and whether torch and torchvision fit together.

`python -m lib.machine.provenance` prints these facts and exits with 1 where the pair is broken. Only the standard
library is imported at the top, so that a broken installation can still be described.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

PROJECT_ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchvision", "timm", "diffusers", "safetensors", "numpy", "scipy", "papermill")

# glibc gives large blocks back to the system and fetches them again, page by page, for every layer of every batch. With
# these two, which a process reads as it starts, it keeps them: on a CPU a ResNet-20 is 1.8 times as fast, and the
# digits network up to 4 times (`make bench` sets them, `python -m benchmarks.throughput` by itself does not). 32 MiB is
# the most that older versions of glibc take.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_MMAP_THRESHOLD_": "33554432"}

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


def check_torch_pair() -> None:
    """RuntimeError, with the command that mends it, where torch and torchvision do not belong together.

    Each torchvision is compiled against one torch. With another, or with a CPU-only torch beside a CUDA
    torchvision, its import fails with `operator torchvision::nms does not exist`, which names neither.
    """
    wanted, found = required_torch(), version("torch")
    if found and not wanted.contains(found, prereleases=True):
        raise RuntimeError(broken_pair(f"this torchvision needs torch{wanted}"))
    try:
        import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:  # OSError: a shared library is missing
        raise RuntimeError(broken_pair(f"importing torchvision says: {error}")) from error


def required_torch() -> SpecifierSet:
    """The torch versions that the installed torchvision asks for; any, where it does not say."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        requirements = [Requirement(line) for line in metadata.requires("torchvision") or []]
    except metadata.PackageNotFoundError:
        requirements = []
    return next((needed.specifier for needed in requirements if needed.name == "torch"), SpecifierSet())


def broken_pair(reason: str) -> str:
    """The message of a broken pair: what was found, why it is broken, what mends it."""
    constraints = PROJECT_ROOT / "constraints.txt"
    pin = f" --constraint {constraints}" if constraints.is_file() else ""
    return (
        f"torch {version('torch')} and torchvision {version('torchvision')} do not fit together: {reason}.\n"
        f"Install both from the same index:\n"
        f"  {sys.executable} -m pip install --force-reinstall{pin} torch torchvision"
    )


def main() -> int:
    """Print the facts; 1 where torch and torchvision are a broken pair."""
    for name, value in describe().items():
        print(f"{name:14} {value}")
    try:
        check_torch_pair()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
