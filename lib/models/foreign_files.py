"""What a file is that somebody took for a PyTorch checkpoint."""

import zipfile
from pathlib import Path

# How a file begins -> what it is, and what to do with it.
BEGINNINGS = {
    b"\x1f\x8b": "compressed with gzip: unpack it, the checkpoint is inside",
    b"BZh": "compressed with bzip2: unpack it, the checkpoint is inside",
    b"\xfd7zXZ": "compressed with xz: unpack it, the checkpoint is inside",
    b"\x89HDF": "an HDF5 file, as Keras writes them: save the weights as a PyTorch state_dict",
    b"\x93NUMPY": "one NumPy array (.npy), without names: save the weights as a PyTorch state_dict",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: fetch that with git lfs pull",
}
SCRIPT = (
    "a TorchScript program, code and weights together: use torch.jit.load(…) as a classifier of your own, or save its "
    "weights alone, torch.save(torch.jit.load(…).state_dict(), 'weights.pth')"
)
EXPORTED = "a program of torch.export: save the model's weights, torch.save(model.state_dict(), 'weights.pth')"
ARRAYS = "NumPy arrays (.npz): turn them into tensors and torch.save them as a state_dict"


def foreign_format(path: Path) -> str | None:
    """What `path` is and what to do, in one sentence; None where it may be a checkpoint, whole or damaged."""
    with path.open("rb") as file:
        start = file.read(512)
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it, the checkpoint is inside"
    if start.startswith(b"PK"):
        return _archive(path)
    return next((meaning for beginning, meaning in BEGINNINGS.items() if start.startswith(beginning)), None)


def _archive(path: Path) -> str | None:
    """PyTorch writes zip files, and so do others."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return None  # damaged
    if any("/code/" in name for name in names):
        return SCRIPT
    if any(name.endswith("models/model.json") for name in names):
        return EXPORTED
    if names and all(name.endswith(".npy") for name in names):
        return ARRAYS
    if any(name.split("/")[-1] == "data.pkl" for name in names):
        return None
    return f"a zip archive of {', '.join(names[:3]) or 'nothing'}: unpack it and name the checkpoint in it"
