"""Copy the records behind the README's figures from runs/digits into results/digits: `python -m results.collect`."""

import re
from pathlib import Path

from lib.config import Common
from lib.records import atomic_write

RESULTS = Path(__file__).parent
KEPT = ("01_train_0.12-test_0.12", "01_train_0.25-test_0.25", "01_train_0.5-test_0.5")


def main() -> None:
    """Copy each record in KEPT and its manifest, without the hash in its name."""
    folder = Common().run_path / "records"
    for name in KEPT:
        for suffix in (".tsv", ".json"):
            newest = max(folder.glob(f"{name}-????????{suffix}"), key=lambda path: path.stat().st_mtime)
            target = RESULTS / "digits" / re.sub(r"-\w{8}$", "", newest.stem)
            atomic_write(target.with_name(target.name + suffix), newest.read_bytes())


if __name__ == "__main__":
    main()
