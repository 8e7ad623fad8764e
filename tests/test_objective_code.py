"""An objective whose code was edited never meets the weights of the old code, in a file as in a notebook."""

import importlib
import linecache
import sys
from types import ModuleType

import pytest
from jupyter_client.manager import start_new_kernel
from processes import PATIENCE

from lib import attacks
from lib.models.defenses import BitDepth
from lib.training import identity
from lib.training.identity import code_hash
from lib.training.objectives import MSE, Gaussian, SqueezedViews, Stability

METHOD = '''
from dataclasses import dataclass
from lib.training.objectives import Objective

WEIGHT = 2.0

def weighted(loss):
    return WEIGHT * loss  # a reason

@dataclass(frozen=True)
class Method(Objective):
    """What it is."""

    sigma: float = 0.5

    def __call__(self, model, images, labels, step):
        return weighted(model(images).square().mean())
'''
SAME = {
    "comment": ("  # a reason", "  # another reason"),
    "docstring": ("What it is.", "What it is, in other words."),
    "layout": ("    return WEIGHT * loss", "\n    return (WEIGHT\n            * loss)"),
}
OTHER = {
    "the loss": ("square()", "abs()"),
    "a helper": ("WEIGHT * loss", "WEIGHT + loss"),
    "a constant": ("2.0", "3.0"),
    "a field": ("0.5", "0.25"),
}


def from_file(source, folder, name="a_method"):
    """The class, from a module of its own."""
    (folder / f"{name}.py").write_text(source)
    linecache.checkcache()
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module(name).Method


def from_cells(source, name="a_notebook"):
    """The class, from a namespace without a file, whose source is known to linecache: as in a notebook."""
    cell = f"<cell {hash(source)}>"
    linecache.cache[cell] = (len(source), None, source.splitlines(keepends=True), cell)
    module = sys.modules[name] = ModuleType(name)
    exec(compile(source, cell, "exec"), vars(module))
    return module.Method


FUNCTOOLS = "from functools import lru_cache, partial"
# What a class in a notebook may look up besides: an edit of any of it is another objective.
LOOKED_UP = {
    "a list": ("LEVELS = [0.1]", "LEVELS = [0.2]", "LEVELS[0]"),
    "a dict": ("SET = {'a': 1}", "SET = {'a': 2}", "SET['a']"),
    "a tensor": ("import torch; T = torch.ones(1)", "import torch; T = torch.zeros(1)", "T"),
    "a number of numpy": ("import numpy as np; N = np.float32(1)", "import numpy as np; N = np.float32(2)", "N"),
    "a module": ("import torch; C = torch.nn.Dropout(0.1)", "import torch; C = torch.nn.Dropout(0.2)", "C(1)"),
    "a class": ("class H:\n    def f(self): return 1", "class H:\n    def f(self): return 2", "H().f()"),
    "a partial": (f"{FUNCTOOLS}; p = partial(pow, 2)", f"{FUNCTOOLS}; p = partial(pow, 3)", "p(2)"),
    "a cached function": (
        f"{FUNCTOOLS}\n@lru_cache\ndef c(): return 1", f"{FUNCTOOLS}\n@lru_cache\ndef c(): return 2", "c()",
    ),
    "a default": ("def d(k=1): return k", "def d(k=2): return k", "d()"),
    "a closure": (
        "def make(k):\n    def inner(): return k\n    return inner\nm = make(1)",
        "def make(k):\n    def inner(): return k\n    return inner\nm = make(5)", "m()",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "use"), LOOKED_UP.values(), ids=LOOKED_UP)
def test_whatever_a_notebooks_class_looks_up_is_part_of_its_code(before, after, use):
    source = METHOD.replace("square().mean()", f"square().mean() * {use}")
    first, again, other = (code_hash(from_cells(f"{text}\n{source}")) for text in (before, before, after))
    sys.modules.pop("a_notebook", None)
    assert first == again != other


def test_functions_of_a_file_of_ones_own_are_part_of_the_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    source, hashes = METHOD.replace("from dataclasses", "from my_helpers import twice\nfrom dataclasses"), []
    for factor in (2, 3):
        (tmp_path / "my_helpers.py").write_text(f"def twice(x): return {factor} * x")
        for module in ("my_helpers", "a_notebook"):
            sys.modules.pop(module, None)
            identity._files.pop(module, None)
        hashes.append(code_hash(from_cells(source.replace("WEIGHT * loss", "twice(loss)"))))
    sys.modules.pop("a_notebook", None)
    assert hashes[0] != hashes[1]


@pytest.fixture(params=["file", "cells"])
def make(request, tmp_path, monkeypatch):
    """source -> class, in either place."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield (lambda source: from_file(source, tmp_path)) if request.param == "file" else from_cells
    for name in ("a_method", "a_notebook"):
        sys.modules.pop(name, None)
        identity._files.pop(name, None)


@pytest.mark.parametrize("edit", SAME)
def test_code_that_computes_the_same_is_the_same(make, edit):
    assert code_hash(make(METHOD)) == code_hash(make(METHOD.replace(*SAME[edit])))


@pytest.mark.parametrize("edit", OTHER)
def test_code_that_computes_something_else_is_another(make, edit):
    old, new = OTHER[edit]
    assert old in METHOD
    assert make(METHOD)().identity() != make(METHOD.replace(old, new))().identity()


def test_a_file_edited_under_a_running_kernel_is_not_yet_what_runs_there(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    method = from_file(METHOD, tmp_path)
    (tmp_path / "a_method.py").write_text(METHOD.replace("square()", "abs()"))
    assert (
        code_hash(method)
        == code_hash(from_file(METHOD, tmp_path))
        != code_hash(from_file(METHOD.replace("square()", "abs()"), tmp_path))
    )


def test_a_helper_that_is_defined_again_in_another_cell_counts_at_once():
    method = from_cells(METHOD)
    before = code_hash(method)
    source = "def weighted(loss):\n    return 7 * loss\n"
    linecache.cache["<cell again>"] = (len(source), None, source.splitlines(keepends=True), "<cell again>")
    exec(compile(source, "<cell again>", "exec"), vars(sys.modules["a_notebook"]))
    assert code_hash(method) != before


@pytest.mark.parametrize(("kind", "behind"), [(Gaussian, "noise"), (Stability, "denoising"), (Stability, "base")])
def test_the_files_behind_a_method_of_the_kit_are_part_of_it(kind, behind, monkeypatch):
    before = code_hash(kind)
    monkeypatch.setitem(identity._files, f"lib.training.objectives.{behind}", "edited")
    assert code_hash(kind) != before


def test_the_file_of_another_method_is_no_part_of_it(monkeypatch):
    before = code_hash(MSE)
    monkeypatch.setitem(identity._files, "lib.training.objectives.noise", "edited")
    assert code_hash(MSE) == before


ATTACKING = METHOD.replace("WEIGHT * loss", "pgd(loss)").replace("WEIGHT = 2.0", "from lib.attacks import pgd")


@pytest.mark.parametrize(
    "how",
    [
        ATTACKING,
        ATTACKING.replace("from lib.attacks import pgd", "from lib import attacks").replace("pgd(", "attacks.pgd("),
    ],
)
def test_an_attack_inside_an_objective_is_part_of_it(make, how, monkeypatch):
    method = make(how)
    before = code_hash(method)
    monkeypatch.setitem(identity._files, attacks.pgd.__module__, "edited")
    assert code_hash(method) != before


def test_the_code_of_a_network_in_a_field_is_part_of_it(monkeypatch):
    objective = SqueezedViews(squeezers=(BitDepth(2),))
    before = objective.identity()
    monkeypatch.setattr(BitDepth, "forward", lambda self, images: images)
    assert objective.identity() != before


def test_code_that_cannot_be_read_is_refused():
    module = sys.modules["a_notebook"] = ModuleType("a_notebook")
    exec(METHOD, vars(module))
    with pytest.raises(ValueError, match=r"the code of Method.__call__ cannot be read: define it in a file or"):
        module.Method().identity()


# ---- a real notebook -------------------------------------------------------------------------------------------

TRAINED = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import test_training as t
from dataclasses import dataclass, replace
import torch.nn.functional as F
from lib.training.objectives import Objective, add_noise

@dataclass(frozen=True)
class Smooth(Objective):
    sigma: float
    def __call__(self, model, images, labels, step):
        return F.cross_entropy(model(add_noise(images, self.sigma, step.generator)), labels, label_smoothing={amount})

t.fit({folder!r}, replace(t.RECIPE, objective=Smooth(0.1)))
"""


def test_a_method_defined_in_a_cell_trains_and_after_an_edit_trains_anew(tmp_path, request):
    values = {"tests": str(request.path.parent), "root": str(request.path.parents[1]), "folder": str(tmp_path)}
    manager, client = start_new_kernel(startup_timeout=PATIENCE)
    files = []
    try:
        for amount in (0.1, 0.1, 0.2):
            code = TRAINED.format(amount=amount, **values)
            answer = client.execute(code, reply=True, timeout=PATIENCE)["content"]
            assert answer["status"] == "ok", answer
            files.append(len(list(tmp_path.glob("*.safetensors"))))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert files == [1, 1, 2]
