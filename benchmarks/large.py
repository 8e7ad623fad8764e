"""Data larger than memory: `python -m benchmarks.large [--images N] [--left N]`.

Makes a folder of synthetic JPEGs (500 x 375, hard links to 200 different ones), plans the certification of all of them
with a tiny network (the point is data, not f), kills the process after its first images, resumes it, resumes it with
all rows but the last 1000 done, and makes another record out of its rows, as the join of shards does. Every step is a
process of its own; its seconds begin when Python has imported the kit, and its MB are those beyond that.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, nn

from lib.certification import certify_dataset
from lib.datasets import file_keys, image_digests, load_dataset
from lib.records.row import read_rows
from lib.records.seen import Seen
from lib.smoothing import SmoothedClassifier

DISTINCT, CLASSES = 200, 100


class Tiny(nn.Module):
    """The mean of each colour, as the logit of a class."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 100)."""
        return nn.functional.pad(images.mean((2, 3)), (0, CLASSES - 3))


def write_folder(root: Path, images: int) -> None:
    """`images` JPEGs of 20 KB or so, in 100 classes; a few hundred are different, the others links to them."""
    random, made = np.random.default_rng(0), []
    for i in range(images):
        path = root / "val" / f"class_{i % CLASSES:03d}" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i < DISTINCT:
            coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            coarse.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=85)
            made.append(path)
        else:
            os.link(made[i % DISTINCT], path)


def step(folder: Path, part: slice, stop_after: int) -> None:
    """One process: certify a part of the images and print seconds and MB as JSON; killed after so many rows, if any."""
    begun, told, before = time.perf_counter(), {}, peak()

    def progress(done: int) -> None:
        now = time.perf_counter() - begun
        told.setdefault("done before", done)
        told.setdefault("s to the first sample", round(now, 1))  # told of the rows there are, before sampling
        told.update({"s": round(now, 1), "rows": done, "MB": round(peak() - before)})
        if stop_after and done - told["done before"] >= stop_after:
            print(json.dumps(told), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    data = load_dataset("folder", folder)
    ids, g = range(len(data.test))[part], SmoothedClassifier(Tiny().eval(), 0.25, CLASSES, batch_size=64)
    certify_dataset(g, data.test, ids, folder / "records" / "all", n0=2, n=8, alpha=0.5, progress=progress)
    print(json.dumps(told | {"s": round(time.perf_counter() - begun, 1), "MB": round(peak() - before)}), flush=True)


def peak() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fill(folder: Path, upto: int) -> None:
    """Rows for the images below `upto`, with the votes of the last row there is: the point is to read them again."""
    test, log = load_dataset("folder", folder).test, next((folder / "records").glob("all-*.tsv.partial"))
    last = read_rows(log)[0][-1]
    digests: dict[tuple[int, int], str] = {}
    rows = []
    for i in range(last.idx + 1, upto):
        path, label = test.samples[i]
        inode = os.stat(path).st_ino
        if (inode, label) not in digests:
            digests[inode, label] = image_digests(test, [i])[0]
        rows.append(replace(last, idx=i, label=label, image=digests[inode, label]))
    with log.open("a") as file:
        file.writelines(row.line() for row in rows)
    Seen(log, file_keys(test, range(len(test))) or {}, list).keep({row.idx: row.image for row in rows})


def tell(folder: Path, what: str, *words: object) -> None:
    """Run one step in a process of its own and print what it says."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.large", "--folder", str(folder), "--step"]
    begun = time.perf_counter()
    done = subprocess.run([*command, *map(str, words)], capture_output=True, text=True)
    if done.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(done.stderr)
    print(f"{what}: {done.stdout.strip()} ({time.perf_counter() - begun:.1f} s with the imports)", flush=True)


def main() -> None:
    """Print a line a step."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--left", type=int, default=1000, help="images that the last run of the whole has to certify")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        word, *numbers = options.step
        first, last, skip, stop_after = (*map(int, numbers), 0, 0, 0)[:4]
        if word == "fill":
            fill(options.folder, first)
        else:
            step(options.folder, slice(first, last, skip), stop_after)
        return
    with tempfile.TemporaryDirectory() as name:
        folder, n = Path(name), options.images
        begun = time.perf_counter()
        write_folder(folder, n)
        print(f"{n} files written: {time.perf_counter() - begun:.1f} s", flush=True)
        time.sleep(2)  # younger files are read again
        tell(folder, "started, and killed", "certify", 0, n, 1, 300)
        tell(folder, "resumed, and killed", "certify", 0, n, 1, 300)
        tell(folder, f"rows for all but {options.left} images", "fill", n - options.left)
        tell(folder, "resumed, to the end", "certify", 0, n, 1)
        tell(folder, "opened again", "certify", 0, n, 1)
        tell(folder, "the images of one shard of 8, whose rows are taken up", "certify", 0, n, 8)


if __name__ == "__main__":
    main()
