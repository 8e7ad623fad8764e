"""Diffusion models as denoisers (Carlini et al. 2023, NOISEANDCLASSIFY): load, denoise.

Smoothing's noise is a point on the diffusion path. A diffusion model sees an image x_0 in [-1, 1] as

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps,    eps ~ N(0, I),

and divided by sqrt(abar_t) that is x_0 plus noise of standard deviation sqrt((1 - abar_t) / abar_t). Noise
sigma in [0, 1] is noise 2 sigma in [-1, 1]. Equating the two gives abar_t = 1 / (1 + 4 sigma^2), hence t*.
"""

import math
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import diffusers
import torch
from diffusers import DDIMScheduler, DDPMScheduler, SchedulerMixin, UNet2DModel
from huggingface_hub import snapshot_download
from torch import Tensor, nn

from lib.bounds.arguments import whole_number
from lib.models.checkpoints import check_finite
from lib.models.openai_unet import PUBLISHED, check_hash, load_openai_unet

SAMPLERS = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}


def cumulative_alphas(scheduler: SchedulerMixin) -> Tensor:
    """abar_t = prod_{s <= t} (1 - beta_s) of any diffusers scheduler with betas (Ho et al. 2020, eq. 4).

    float64 (T,): at sigma = 1 the float32 product over 2,809 steps is off by a thirtieth of what decides t*.
    Raises ValueError for a scheduler without betas.
    """
    betas = getattr(scheduler, "betas", None)
    if betas is None:
        raise ValueError(f"scheduler must have betas (as DDPMScheduler has), got {type(scheduler).__name__}")
    return torch.cumprod(1 - betas.double().cpu(), dim=0)


def _noise_levels(alphas_cumprod: Tensor) -> Tensor:
    """The noise of every step in [0, 1] pixel units: float64, increasing."""
    abar = torch.as_tensor(alphas_cumprod, dtype=torch.float64, device="cpu")
    return ((1 - abar) / abar).sqrt() / 2


def sigma_at(t: int, alphas_cumprod: Tensor) -> float:
    """The real noise level of timestep t in [0, 1] pixel units: 1/2 sqrt((1 - abar_t) / abar_t)."""
    return float(_noise_levels(alphas_cumprod)[t])


def timestep_for(sigma: float, alphas_cumprod: Tensor) -> int:
    """t* = min{t : abar_t <= 1 / (1 + 4 sigma^2)}: the first timestep at least as noisy as sigma.

    `sigma` in [0, 1] pixel units; `alphas_cumprod` (T,), decreasing; t counts from 0. Source: Carlini et al.
    2023, section 3. Raises ValueError where the schedule never reaches sigma, or starts above it.
    """
    levels = _noise_levels(alphas_cumprod)
    if not levels[0] <= sigma <= levels[-1]:  # False for NaN too
        ends = f"{levels[0]:.4g} to {levels[-1]:.4g}"
        raise ValueError(f"sigma must lie within the noise levels of the schedule, {ends}; got {sigma}")
    return int(torch.searchsorted(levels, torch.tensor(float(sigma), dtype=torch.float64)))


def fractional_timestep(sigma: float, alphas_cumprod: Tensor) -> float:
    """The t in (t* - 1, t*] whose noise is sigma itself: between steps log sigma_t is taken as linear in t.

    Same arguments and errors as `timestep_for`.
    """
    t = timestep_for(sigma, alphas_cumprod)
    log_levels = _noise_levels(alphas_cumprod).log()
    if t == 0:
        return 0.0
    below, above = log_levels[t - 1], log_levels[t]
    log_sigma = torch.tensor(float(sigma), dtype=torch.float64).log()
    return t - 1 + float((log_sigma - below) / (above - below))


class DiffusionDenoiser(nn.Module):
    """Noisy images (N, C, H, W) -> denoised images in [0, 1]; the input is x + N(0, sigma^2), unclipped.

    `unet`: a diffusers UNet2DModel, or any module with unet(x_t, t).sample; where it has twice the channels
    (a learned variance), the first half is used. `scheduler`: any diffusers scheduler with betas that
    predicts epsilon, sample (x_0) or v_prediction. `steps=1` is the one-shot prediction of x_0, clipped, and
    the same for both samplers. More steps (None: all t* + 1; or the timesteps themselves, cleanest first, t* last)
    run from t* down to the image, by ancestral sampling ("ddpm") or deterministically ("ddim"). Every chain starts at
    t*; the paper's public code starts one step late.

    *Exact noise.* The image carries noise of exactly sigma and is scaled by 1 / sqrt(1 + 4 sigma^2): the
    chain's first abar is that of sigma, not of a rounded t, so the radius may use sigma as it is. Only what
    the UNet is told is a choice: t* (`timestep="nearest"`, from above, as in the paper) or the `"fractional"`
    t of sigma.

    *Ancestral noise* is a function of `seed` and the bits of the noisy image, never of call order or batch.
    So the denoiser is one fixed function, to which Cohen's theorem applies as to any base classifier, and a
    resumed run counts the same. It costs a copy of the noisy images to the host; DDIM and one-shot do not.

    `expected_sigma` lets a smoothed classifier refuse to certify at any other sigma than this one. Raises
    ValueError for an argument out of its range.
    """

    def __init__(
        self,
        unet: nn.Module,
        scheduler: SchedulerMixin,
        sigma: float,
        steps: int | Sequence[int] | None = 1,
        sampler: str = "ddpm",
        timestep: str = "nearest",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {sorted(SAMPLERS)}, got {sampler!r}")
        if timestep not in ("nearest", "fractional"):
            raise ValueError(f"timestep must be 'nearest' or 'fractional', got {timestep!r}")
        abar = cumulative_alphas(scheduler)
        kept = _kept_steps(timestep_for(sigma, abar), steps)
        start = kept[-1] if timestep == "nearest" else fractional_timestep(sigma, abar)
        self.unet = unet
        self.sigma = self.expected_sigma = float(sigma)
        self.scale = (1 + 4 * self.sigma**2) ** -0.5  # sqrt(abar) at sigma
        self.timesteps = (*kept[:-1], start)  # what the UNet is told, cleanest first
        levels = torch.cat([abar[kept[:-1]], abar.new_tensor([self.scale**2])])
        self.chain = _chain(scheduler, levels, sampler)
        self.even = steps is None or isinstance(steps, int)
        self.seed = seed

    def extra_repr(self) -> str:
        """What the weights do not tell: records of another chain must not be taken for this one's."""
        chain = f"{len(self.timesteps)} steps of {type(self.chain).__name__} from t = {self.timesteps[-1]:g}"
        over = "" if self.even else f" over t = {', '.join(f'{t:g}' for t in self.timesteps[-2::-1])}"
        return f"sigma={self.sigma}, {chain}{over}, seed={self.seed}"

    def forward(self, noisy: Tensor) -> Tensor:
        x = (2 * noisy - 1) * self.scale
        options = self._step_options(noisy)
        for step in reversed(range(len(self.timesteps))):
            prediction = self._predict(x, self.timesteps[step])
            x = self.chain.step(prediction, step, x, **options).prev_sample
        return (x + 1) / 2

    def _predict(self, x: Tensor, t: float) -> Tensor:
        """The UNet's answer; t goes in as a tensor, since UNet2DModel truncates a Python float."""
        t = torch.full((len(x),), t, device=x.device)
        return self.unet(x, t).sample[:, : x.shape[1]].to(x.dtype)

    def _step_options(self, noisy: Tensor) -> dict:
        """What the scheduler's step takes besides the prediction: keyed noise, or how DDIM clips."""
        if isinstance(self.chain, DDIMScheduler):
            return {"use_clipped_model_output": True}  # epsilon of the clipped x_0, as in OpenAI's sampler
        if len(self.timesteps) == 1:
            return {}  # the last step of a chain draws no noise
        return {"generator": keyed_generators(noisy, self.seed)}


class NoisyAgain(nn.Module):
    """Noisy images (N, C, H, W) -> `copies` of each, denoised and with noise of level `sigma` again: (copies * N, ...).

    All first copies come first. The inner noise is a function of `seed` and the bits of the noisy image, as the
    ancestral noise of `DiffusionDenoiser` is. ValueError for sigma <= 0 and copies < 1.
    """

    def __init__(self, denoiser: DiffusionDenoiser, sigma: float, copies: int, seed: int = 0) -> None:
        super().__init__()
        if not 0 < sigma < float("inf"):
            raise ValueError(f"sigma must be a finite number above 0; got {sigma!r}")
        self.denoiser, self.sigma, self.copies = denoiser, float(sigma), whole_number(copies, "copies", 1)
        self.seed, self.expected_sigma, self.training = seed, denoiser.expected_sigma, denoiser.training

    def forward(self, noisy: Tensor) -> Tensor:
        shape, keyed = (self.copies, *noisy.shape[1:]), keyed_generators(noisy, self.seed)
        noise = torch.stack([torch.randn(shape, generator=key, device=noisy.device) for key in keyed], 1)
        return (self.denoiser(noisy) + self.sigma * noise).flatten(0, 1)


class DiffSmooth(nn.Module):
    """Local smoothing behind a diffusion model, all of it f: (N, C, H, W) -> (N, K), log of the mean softmax.

    `classifier`, which was trained on noise of level `local_sigma`, sees `copies` of the denoised image with noise of
    that level (Zhang et al. 2023). The certificate is that of the denoiser's own sigma. Errors as in `NoisyAgain`.
    """

    def __init__(
        self, denoiser: DiffusionDenoiser, classifier: nn.Module, local_sigma: float, copies: int = 5, seed: int = 0
    ) -> None:
        super().__init__()
        self.denoiser = NoisyAgain(denoiser, local_sigma, copies, seed)
        self.classifier, self.copies = classifier, self.denoiser.copies
        self.training = denoiser.training or classifier.training

    def forward(self, noisy: Tensor) -> Tensor:
        answers = self.classifier(self.denoiser(noisy)).float().log_softmax(1)
        return answers.unflatten(0, (self.copies, -1)).logsumexp(0) - math.log(self.copies)  # finite, however sure


def keyed_generators(images: Tensor, seed: int) -> list[torch.Generator]:
    """A generator an image (N, C, H, W), seeded by its bits and `seed` alone: not by call, order or batch."""
    start = zlib.crc32(str(seed).encode())
    keys = [zlib.crc32(image.tobytes(), start) for image in images.detach().cpu().numpy()]
    return [torch.Generator(images.device).manual_seed(key) for key in keys]


def geometric_timesteps(sigma: float, alphas_cumprod: Tensor, count: int, lowest: float = 0.01) -> list[int]:
    """Timesteps whose noise falls from `sigma` to `lowest` by one factor a step, cleanest first, t* last.

    As the levels of score networks do (Song and Ermon 2019, who end at 0.01; Lee 2021 denoises down such a list).
    Levels in [0, 1] pixel units, each at the first timestep as noisy, none below the schedule's first; where two share
    one, there are fewer than `count`. ValueError for count < 1, or a sigma outside the schedule.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    factors = [i / max(count - 1, 1) for i in range(count)]
    levels = [sigma * (min(lowest, sigma) / sigma) ** factor for factor in factors]
    least = sigma_at(0, alphas_cumprod)
    first, *others = levels  # sigma itself is refused where the schedule does not have it
    return sorted({timestep_for(level, alphas_cumprod) for level in [first, *(max(o, least) for o in others)]})


def _kept_steps(start: int, steps: int | Sequence[int] | None) -> list[int]:
    """`steps` timesteps, evenly spaced up to `start` ("trailing" in Lin et al. 2024, Table 2), or those given."""
    if isinstance(steps, Sequence):
        chosen = list(steps)
        rising = all(earlier < later for earlier, later in pairwise(chosen))
        if not (chosen and rising and chosen[0] >= 0 and chosen[-1] == start):
            raise ValueError(f"steps must rise from 0 or more to t* = {start}; got {chosen}")
        return chosen
    total = start + 1
    steps = total if steps is None else steps
    if not 1 <= steps <= total:
        raise ValueError(f"steps must be from 1 to t* + 1 = {total}, or None for all of them; got {steps}")
    return [total * i // steps - 1 for i in range(1, steps + 1)]


def _chain(scheduler: SchedulerMixin, abar: Tensor, sampler: str) -> DDPMScheduler | DDIMScheduler:
    """A scheduler whose steps 0, 1, ... have exactly this abar: respacing (Nichol & Dhariwal 2021, sec. 4).

    diffusers' own timesteps would not do: DDIMScheduler cannot start at t*, neither at the abar of sigma.
    """
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "sample", "v_prediction"):
        raise ValueError(f"scheduler must predict epsilon, sample or v_prediction, got {prediction!r}")
    variance = scheduler.config.get("variance_type", "fixed_small")
    if variance.startswith("learned"):
        variance = "fixed_small"  # the network's own variance is dropped with the second half of its channels
    betas = 1 - abar / torch.cat([abar.new_ones(1), abar[:-1]])
    chain = SAMPLERS[sampler](
        num_train_timesteps=len(abar),
        trained_betas=betas.tolist(),
        prediction_type=prediction,
        clip_sample=True,
        **({"variance_type": variance} if sampler == "ddpm" else {}),
    )
    chain.alphas_cumprod = abar  # float64: in float32, abar_t / abar_{t-1} keeps two digits of a beta of 1e-5
    chain.set_timesteps(len(abar))
    return chain


def load_diffusion(
    name_or_path: str | Path, folder: str | Path = "checkpoints", sha256: str | None = None
) -> tuple[UNet2DModel, SchedulerMixin]:
    """A diffusion model in eval mode and its scheduler, from local files only.

    `name_or_path`: a name of openai_unet.PUBLISHED (a file in `folder`) or a path to it, a folder that
    diffusers wrote, or a Hugging Face id whose files are in the local cache. `sha256` of the weights is
    checked before they are opened; where it is published, it need not be given. Raises FileNotFoundError that
    says what to download, how large it is and where to put it; ValueError for a wrong hash or layout.
    """
    path = Path(name_or_path)
    if path.name not in PUBLISHED:
        return _load_folder(path if path.is_dir() else _cached(str(name_or_path)), sha256)
    published = PUBLISHED[path.name]
    path = Path(folder) / path if path.parent == Path() else path
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}: download it ({published.megabytes} MB) from {published.url}")
    return load_openai_unet(path, published.config, sha256 or published.sha256)


def _cached(repository: str) -> Path:
    """The local copy of a Hugging Face repository; nothing is downloaded."""
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (OSError, ValueError) as error:  # not in the cache, or no repository id at all
        size = "143 MB" if repository == "google/ddpm-cifar10-32" else "its page says how large"
        advice = f"`hf download {repository}` ({size}) puts it into the local cache of Hugging Face"
        raise FileNotFoundError(f"no folder and no cached repository {repository!r}: {advice}") from error


def _load_folder(folder: Path, sha256: str | None) -> tuple[UNet2DModel, SchedulerMixin]:
    """diffusers' layouts: unet/ and scheduler/ (its pipelines), or all at the top (google/ddpm-*)."""
    unet, schedule = (folder / part if (folder / part).is_dir() else folder for part in ("unet", "scheduler"))
    weights = unet / "diffusion_pytorch_model.safetensors"
    for file in (weights, unet / "config.json", schedule / "scheduler_config.json"):
        if not file.is_file():
            raise FileNotFoundError(f"no file {str(file)!r}: {str(folder)!r} is no whole diffusers model")
    check_hash(weights, sha256)
    return _load_unet(unet), _load_scheduler(schedule)


def _load_unet(folder: Path) -> UNet2DModel:
    unet, found = UNet2DModel.from_pretrained(
        folder, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
    )
    wrong = found["missing_keys"] + found["unexpected_keys"] + found["mismatched_keys"]
    if wrong:  # diffusers fills what is missing with random weights and only logs it
        raise ValueError(f"weights in {str(folder)!r} do not fit its config.json: {wrong[:4]}")
    check_finite(unet.state_dict(), str(folder))
    return unet


def _load_scheduler(folder: Path) -> SchedulerMixin:
    """As the class that its file names: another one would read an unknown schedule as its own defaults."""
    name = DDPMScheduler.load_config(folder).get("_class_name")
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
        raise ValueError(f"{str(folder)!r} names a scheduler that diffusers does not have: {name!r}")
    return found.from_pretrained(folder)
