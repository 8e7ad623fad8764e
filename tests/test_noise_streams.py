"""The streams behind the noise: pinned by golden values on a CPU; a GPU's kernel draws the same, as C++ here."""

import ctypes
import shutil
import subprocess

import pytest
import torch

from lib.sampling import noise, standard_normal, uniform_bits
from lib.words import LARGEST_KEY

CPU = torch.device("cpu")
GOLDEN = [[-1.025336, 0.978269, -0.316744], [1.835443, 1.774693, 1.028624], [-0.730845, -0.370253, -0.166232]]
GOLDEN_BITS = [[631438482132104018, 975539123683167896], [441198953086710652, 1069913925888579455]]
PIECES = [(0, 0, 3), (2, 100, 7), (LARGEST_KEY, 10**6, 1), (5, 2, 1), (5, 3, 40)]
AS_ON_A_GPU = """
#include <cmath>
#include <cstring>
static unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return (unsigned __int128)x * y >> 64;
}
static unsigned int __float_as_uint(float x) { unsigned int bits; memcpy(&bits, &x, 4); return bits; }
KERNEL
extern "C" void run(long rows, long columns, const long* image, const long* start, long seed, long* out) {
  for (long i = 0; i < rows; ++i)
    for (long j = 0; j < columns; ++j) out[i * columns + j] = NAME<long>(image[i], start[i], j, seed);
}
"""


def test_the_normal_stream_is_the_one_that_records_were_made_with():
    seen = standard_normal((3,), 1, [(2, 0, 2), (2**32 - 1, 10**6, 1)], CPU)
    assert torch.allclose(seen, torch.tensor(GOLDEN), atol=1e-6)


def test_the_uniform_stream_is_the_one_that_records_were_made_with():
    assert uniform_bits((2,), 1, [(2, 0, 1), (7, 3, 1)], CPU).tolist() == GOLDEN_BITS


@pytest.fixture
def cuda_in_words(monkeypatch, tmp_path):
    """A device whose kernels are compiled for this machine; everything around them is the code that a GPU runs."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")

    def compiled(code, **_):
        name = "keyed_normal" if "keyed_normal" in code else "keyed_bits"
        source, library = tmp_path / f"{name}.cpp", tmp_path / f"{name}.so"
        source.write_text(AS_ON_A_GPU.replace("KERNEL", code).replace("NAME", name))
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", source, "-o", library], check=True)
        run = ctypes.CDLL(str(library)).run

        def launch(image, start, pair, seed):
            out = torch.empty(len(image), len(pair), dtype=torch.int64)
            assert image.shape == start.shape == (len(image), 1)
            places = [tensor.contiguous() for tensor in (image, start)]
            pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (*places, out)]
            run(*map(ctypes.c_long, out.shape), *pointers[:2], ctypes.c_long(seed), pointers[2])
            return out

        return launch

    class Cuda:
        type = "cuda"

    monkeypatch.setattr("torch.cuda.jiterator._create_jit_fn", compiled)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    to, arange = torch.Tensor.to, torch.arange
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *where, **how: to(tensor, CPU))
    monkeypatch.setattr(torch, "arange", lambda *ends, device: arange(*ends))
    noise._kernel.cache_clear()
    yield Cuda()
    noise._kernel.cache_clear()


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 5), (1, 8, 8)])
def test_the_kernel_of_a_gpu_draws_what_a_cpu_draws(shape, cuda_in_words):
    for seed in (0, 1, LARGEST_KEY):
        arguments = shape, seed, PIECES
        assert torch.equal(uniform_bits(*arguments, cuda_in_words), uniform_bits(*arguments, CPU))
        assert torch.allclose(standard_normal(*arguments, cuda_in_words), standard_normal(*arguments, CPU), atol=2e-6)


def test_torch_finds_the_entry_of_each_kernel():
    """It reads C++ by a regular expression, which a > in the wrong place would mislead."""
    for kind in noise.RETURNED:
        assert noise._kernel(kind).kernel_name == f"keyed_{kind}"
