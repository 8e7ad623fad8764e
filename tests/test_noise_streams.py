"""The streams behind the noise: pinned by golden values on a CPU, block by block on a GPU."""

import pytest
import torch
from toys import Recorder, hyperplane

from lib.sampling import class_counts, noise, standard_normal, uniform_bits

CPU = torch.device("cpu")
GOLDEN = [[-1.025336, 0.978269, -0.316744], [1.835443, 1.774693, 1.028624], [-0.730845, -0.370253, -0.166232]]
GOLDEN_BITS = [[631438482132104018, 975539123683167896], [441198953086710652, 1069913925888579455]]
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_the_normal_stream_is_the_one_that_records_were_made_with():
    seen = standard_normal((3,), 1, [(2, 0, 2), (2**32 - 1, 10**6, 1)], CPU)
    assert torch.allclose(seen, torch.tensor(GOLDEN), atol=1e-6)


def test_the_uniform_stream_is_the_one_that_records_were_made_with():
    assert uniform_bits((2,), 1, [(2, 0, 1), (7, 3, 1)], CPU).tolist() == GOLDEN_BITS


class Offsets:
    """Stands for a CUDA generator: remembers its key and where in the stream it was set."""

    def __init__(self, device):
        self.key = self.offset = None

    def manual_seed(self, key):
        self.key = key
        return self

    def set_offset(self, offset):
        self.offset = offset


def drawn(size, *, generator, device):
    """Every sample says its block's place in the stream, and its own place in the block."""
    assert generator.offset % 2**20 == 0 and generator.key == 5 << 32 | 9
    return torch.stack([torch.full((size[0],), generator.offset >> 20), torch.arange(size[0])], dim=1)


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 100), (99, 2), (150, 300), (1234, 1)])
def test_on_a_gpu_a_sample_is_always_the_same_place_of_the_same_block(first, count, monkeypatch):
    monkeypatch.setattr(noise.torch, "Generator", Offsets)
    seen = noise._cuda_noise(drawn, (2,), 5, 9, first, count, CPU)
    assert seen.tolist() == [[sample // 100, sample % 100] for sample in range(first, first + count)]


def counts_on_cuda(ids=(7, 3, 40), n=250, **changed):
    images = torch.rand(3, 1, 3, 4, generator=torch.Generator().manual_seed(1)).cuda()[: len(ids)]
    base = changed.pop("base", hyperplane().cuda())
    return class_counts(
        base, images, ids, n, **{"sigma": 0.5, "num_classes": 2, "seed": 3, "batch_size": 128} | changed
    )


@cuda
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_counts_on_a_gpu_do_not_depend_on_the_batch_size(batch_size):
    assert torch.equal(counts_on_cuda(batch_size=batch_size), counts_on_cuda())


@cuda
def test_samples_on_a_gpu_in_two_parts_are_those_taken_at_once():
    assert torch.equal(counts_on_cuda(n=130) + counts_on_cuda(n=270, start=130), counts_on_cuda(n=400))


@cuda
def test_an_image_has_the_same_counts_on_a_gpu_alone_and_in_a_sweep():
    assert torch.equal(counts_on_cuda(ids=(7,))[0], counts_on_cuda()[0])


@cuda
def test_no_two_samples_images_or_seeds_share_noise_on_a_gpu():
    seen = []
    for seed in (0, 1):
        base = Recorder().eval()
        counts_on_cuda(base=base, num_classes=3, seed=seed, n=205)
        seen.append(base.seen.flatten(1))
    rows = torch.cat(seen)
    assert len(rows.unique(dim=0)) == len(rows)
