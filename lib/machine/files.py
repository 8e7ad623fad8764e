"""Files that are whole or not there: what is written under its final name is complete."""

import os
from pathlib import Path


def partial_path(path: str | Path) -> Path:
    """Where the file that will be called `path` lives until it is whole."""
    return Path(f"{path}.partial")


def atomic_write(path: str | Path, data: str | bytes) -> None:
    """Write `data` to `path` (its folder is made) so that no reader, and no crash, ever meets half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise named_error(error, path) from None
    finally:
        temporary.unlink(missing_ok=True)


def named_error(error: OSError, path: Path) -> OSError:
    """The same error with the file's name in its message: a failed write does not carry it."""
    return type(error)(error.errno, error.strerror or str(error), str(path))
