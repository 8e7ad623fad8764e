"""f in another precision or layout: what changes, what does not, and that it is one function everywhere."""

import copy
import pickle
import subprocess
import sys
import textwrap
import warnings
from functools import partial

import pytest
import torch
from diffusers import DDPMScheduler
from processes import PATIENCE
from torch import nn
from toys import Recorder

from lib.models import Denoised, build_denoiser
from lib.models.classifiers import CifarResNet, Normalize
from lib.models.compute import Compute, Computed
from lib.models.diffusion import DiffSmooth, DiffusionDenoiser
from lib.models.identity import identity
from lib.models.small_unet import UNETS
from lib.sampling import class_counts
from lib.smoothing import SmoothedClassifier

IMAGES = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def resnet():
    """A ResNet-8 whose batch statistics are not those of a fresh one."""
    torch.manual_seed(0)
    network = nn.Sequential(Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.2)), CifarResNet(8))
    network(torch.rand(50, 3, 32, 32))
    return network.eval().requires_grad_(False)


def logits(compute, network=None, images=IMAGES):
    with torch.no_grad():
        return Computed(network or resnet(), compute)(images)


@pytest.mark.parametrize("words", ["float32", "tf32", "float32, channels-last", "float32, folded"])
def test_float32_in_any_layout_or_folded_is_the_network_up_to_rounding(words):
    assert torch.allclose(logits(words), resnet()(IMAGES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("words", ["bfloat16", "bfloat16, channels-last, folded", "float16"])
def test_half_precision_is_near_and_yet_another_function(words):
    exact, halved = resnet()(IMAGES), logits(words)
    assert halved.dtype == torch.float32
    assert 0 < (halved - exact).abs().max() < 0.05 * exact.abs().max()


def test_folding_leaves_no_batch_normalisation_and_the_network_untouched():
    network = resnet()
    before = identity(network)
    folded = Computed(network, "float32, folded")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert identity(network) == before


def test_folding_goes_through_a_denoiser_too():
    base = Denoised(build_denoiser("cifar_dncnn").eval(), resnet())
    assert torch.allclose(logits("float32, folded", base), base(IMAGES), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("behind", [Denoised, lambda *parts: DiffSmooth(*parts, local_sigma=0.25, copies=2)])
def test_folding_goes_on_behind_a_diffusion_model(behind):
    base = behind(DiffusionDenoiser(UNETS["train"][3, 32, 32](), DDPMScheduler(), 0.5), resnet()).eval()
    folded = Computed(base, "float32, folded")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert {module.expected_sigma for module in folded.modules() if hasattr(module, "expected_sigma")} == {0.5}
    assert torch.allclose(folded(IMAGES), base(IMAGES), rtol=1e-3, atol=1e-3)


def test_folding_is_refused_for_what_it_would_change_or_cannot_follow():
    unet = DiffusionDenoiser(UNETS["train"][1, 8, 8](), DDPMScheduler(), 0.5).eval()
    with pytest.raises(ValueError, match="diffusion models"):
        Computed(unet, "float32, folded")
    with pytest.raises(ValueError, match="eval mode"):
        Computed(resnet().train(), "float32, folded")

    class Choosy(nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    with pytest.raises(ValueError, match="cannot trace Choosy"):
        Computed(Choosy().eval(), "float32, folded")


def test_a_precision_set_outside_has_no_say():
    network = resnet()
    with torch.autocast("cpu", torch.bfloat16):
        inside = logits("float32", network)
        assert not torch.equal(inside, network(IMAGES).float())
    assert torch.equal(inside, logits("float32", network))


@pytest.mark.parametrize(("words", "tf32"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_products_on_a_gpu_are_in_tf32_only_where_it_is_asked_for(words, tf32):
    class Looks(Recorder):
        def forward(self, images):
            self.found = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
            return super().forward(images)

    def flags():
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()

    network, original = Looks().eval(), torch.get_float32_matmul_precision()
    for outside in ("highest", "medium"):
        torch.set_float32_matmul_precision(outside)
        before = flags()
        try:
            logits(words, network)
            assert network.found == (tf32, tf32) and flags() == before
        finally:
            torch.set_float32_matmul_precision(original)


def test_tf32_set_through_the_interface_that_cannot_be_combined_is_refused_in_words():
    conv, before = torch.backends.cudnn.conv, torch.backends.cudnn.conv.fp32_precision
    conv.fp32_precision = "ieee"
    try:
        with pytest.raises(ValueError, match="compute sets TF32 itself"):
            logits("float32")
    finally:
        conv.fp32_precision = before
    assert torch.backends.cudnn.allow_tf32


def test_channels_last_is_the_layout_that_the_network_sees():
    network = Recorder().eval()
    logits("float32, channels-last", network)
    assert network.batches[0].is_contiguous(memory_format=torch.channels_last)


def test_a_compiled_network_sees_few_batch_sizes_and_answers_for_the_images_only(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda call, **how: call)  # the filling up, without the compiler
    network = Recorder().eval()
    f = Computed(network, "float32, compiled")
    for rows in (1, 100, 128, 129, 500, 1024):
        assert len(f(torch.rand(rows, 3, 4, 4))) == rows
    assert [len(batch) for batch in network.batches] == [16, 128, 128, 256, 512, 1024]


def test_compiled_logits_are_the_networks_and_a_copy_compiles_its_own(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # needs no C++ compiler
    f = Computed(resnet(), "float32, compiled")
    with torch.no_grad():
        assert torch.allclose(f(IMAGES), resnet()(IMAGES), rtol=1e-4, atol=1e-4)
        for twin in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
            assert twin._call is None and identity(twin) == identity(f)


def test_logits_are_the_callers_to_keep():
    class Reuses(nn.Module):
        """Answers in the same memory each time, as a CUDA graph does."""

        def __init__(self):
            super().__init__()
            self.register_buffer("answer", torch.zeros(5, 2))

        def forward(self, images):
            return self.answer.copy_(images.flatten(1)[:, :2])

    f = Computed(Reuses().eval())
    first, second = f(IMAGES), f(IMAGES.flip(0))
    assert torch.equal(first, second.flip(0)) and not torch.equal(first, second)


def test_however_many_networks_a_process_compiles_all_of_them_are_compiled(monkeypatch):
    seen = []

    def backend(graph, inputs):
        seen.append(inputs)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    for classes in range(2, 14):  # torch by itself compiles eight, and runs the others as they are
        f = Computed(nn.Sequential(nn.Flatten(), nn.Linear(12, classes)).eval(), "float32, compiled")
        assert len(f(torch.rand(3, 3, 2, 2))) == 3
    assert len(seen) == 12


def test_wrapping_a_network_changes_the_mode_of_none_of_its_parts():
    parts = nn.Sequential(nn.BatchNorm2d(3).train(), nn.BatchNorm2d(3).eval())
    assert Computed(parts).training and not parts[1].training


def test_a_network_that_uses_a_layer_twice_is_not_folded():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images):
            return self.bn(self.conv(self.bn(self.conv(images))))

    with pytest.raises(ValueError, match="conv of Twice is used 2 times"):
        Computed(Twice().eval(), "float32, folded")


def test_every_way_is_another_f_to_a_record():
    ways = ["float32", "tf32", "bfloat16", "bfloat16, channels-last", "bfloat16, channels-last, folded"]
    assert len({identity(Computed(resnet(), way)) for way in ways}) == len(ways)


@pytest.mark.parametrize("words", ["", "int8", "channels-last", "float32,folded", "float32, folded, folded", "tf32\n"])
def test_words_that_say_nothing_are_refused(words):
    with pytest.raises(ValueError, match="compute = "):
        Compute.parse(words)


# ---- too little memory ------------------------------------------------------------------------------------------


class Greedy(Recorder):
    """Fails as an allocator does, for batches of more than 100 images."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, images):
        if len(images) > 100:
            raise self.error
        return super().forward(images)


def count(base, **changed):
    images = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return class_counts(base, images, [4, 9, 2], 333, **{"sigma": 0.5, "num_classes": 3, "batch_size": 500} | changed)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory")]
)
def test_a_batch_too_large_for_the_memory_is_halved_until_it_fits(error):
    base, plain = Greedy(error).eval(), Recorder().eval()
    with pytest.warns(UserWarning, match="out of memory with") as told:
        counts = count(base)
    assert [str(warning.message).split()[4] for warning in told] == ["500", "250", "125"]
    assert torch.equal(counts, count(plain))
    assert torch.equal(base.seen, plain.seen), "the same noise, each sample once"
    assert max(len(batch) for batch in base.batches) == 62  # 500, 250, 125, 62


def test_a_smoothed_classifier_remembers_the_batch_that_fitted():
    base = Greedy(MemoryError()).eval()
    g = SmoothedClassifier(base, 0.5, 3, batch_size=400)
    with pytest.warns(UserWarning, match="out of memory with 400"):
        g.sample(torch.rand(1, 1, 4, 4), [0], 400)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert g.sample(torch.rand(1, 1, 4, 4), [0], 400).sum() == 400
    assert g.batch_size == 400, "what the record is named after"


def test_an_error_of_another_kind_is_not_taken_for_too_little_memory():
    with pytest.raises(RuntimeError, match="shapes"):
        count(Greedy(RuntimeError("shapes do not fit")).eval())


def test_one_image_that_does_not_fit_is_an_error():
    class Full(Recorder):
        def forward(self, images):
            raise MemoryError("not even one")

    with pytest.raises(MemoryError, match="not even one"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count(Full().eval())


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited as Linux does it")
def test_a_process_that_runs_out_of_memory_for_real_goes_on():
    program = """
        import resource, torch
        from torch import nn
        from lib.sampling import class_counts
        torch.set_num_threads(1)
        base = nn.Sequential(nn.Flatten(), nn.Linear(64, 40_000), nn.Linear(40_000, 2)).eval()
        arguments = dict(sigma=0.5, num_classes=2)
        small = class_counts(base, torch.full((2, 1, 8, 8), 0.5), [0, 1], 3000, batch_size=100, **arguments)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)  # 6000 rows would take 960 MB
        large = class_counts(base, torch.full((2, 1, 8, 8), 0.5), [0, 1], 3000, batch_size=6000, **arguments)
        assert large.sum(1).tolist() == [3000, 3000] and (large - small).abs().max() <= 2, (large, small)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert "out of memory with 6000 noisy images at once; going on with 3000" in done.stderr
