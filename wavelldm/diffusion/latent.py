"""Latent diffusion: a U-Net, a path from noise to speech, and the measured scale of the latents.

It lives on the continuous latent, before the quantiser, scaled to mean 0 and deviation 1 per channel (WaveLLDM, arXiv
2508.21153; the scaling as in latent diffusion, arXiv 2112.10752, section 4.3, but measured for each channel).
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..errors import WavelldmError
from .samplers import SAMPLERS, Callback, Denoise, FrameNoise, inpaint
from .schedule import KINDS, convert, make, q_sample
from .unet import UNet, UNetConfig

PATHS = ("noise", "bridge", "none")


@dataclass(frozen=True)
class DiffusionConfig:
    """The latent diffusion: what it works on, what it predicts, and along which path."""

    latent_dim: int = 384  # D of the codec's latent
    unet: UNetConfig = field(default_factory=UNetConfig)
    schedule: str = "cosine"
    steps: int = 1000
    predicts: str = "z0"  # or "v", "eps"
    path: str = "noise"  # or "bridge", "none": see LatentDiffusion
    bridge_noise: float = 0.5  # deviation of the noise that a bridge adds to its noisy end


@dataclass(frozen=True)
class StreamState:
    """Between two blocks of a recording: the sampler, the U-Net's state at each of its steps, the noise's place."""

    sampler: str
    unets: tuple
    noise: FrameNoise


class LatentDiffusion(nn.Module):
    """z of a noisy recording -> z of a clean one, both (B, D, T) as the codec's encoder makes them: `sample`.

    Three paths to the same end (`config.path`). "noise": diffusion from pure noise, conditioned on the noisy latent.
    "bridge": a straight line from the noisy latent (and a little noise) to the clean one, learnt as z0. "none": a
    predictor of the same size."""

    Config = DiffusionConfig

    def __init__(self, config: DiffusionConfig):
        super().__init__()
        c = self.config = config
        if c.predicts not in KINDS or c.path not in PATHS:
            raise WavelldmError(
                f"a U-Net predicts {' or '.join(KINDS)} on a path {' or '.join(PATHS)}, "
                f"not '{c.predicts}' on '{c.path}'"
            )
        if c.path != "noise" and c.predicts != "z0":
            raise WavelldmError(f"on the path '{c.path}' only z0 can be predicted; set predicts=z0")
        self.schedule = make(c.schedule, c.steps, zero_terminal=c.predicts != "eps")
        self.unet = UNet(c.unet, c.latent_dim)
        self.register_buffer("mean", torch.zeros(c.latent_dim))
        self.register_buffer("deviation", torch.ones(c.latent_dim))

    def measure(self, mean: Tensor, deviation: Tensor) -> None:
        """Keep the latents' statistics per channel (D,), measured on training data, with the weights."""
        if not (torch.isfinite(mean).all() and (deviation > 0).all()):
            raise WavelldmError(
                "the latents' statistics are not finite, or a channel never changes; check the codec and the data"
            )
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def normalise(self, z: Tensor) -> Tensor:
        """A codec's latents (B, D, T) -> mean 0, deviation 1 per channel."""
        return (z - self.mean[:, None]) / self.deviation[:, None]

    def denormalise(self, z: Tensor) -> Tensor:
        """The way back, to latents that the codec's decoder knows."""
        return z * self.deviation[:, None] + self.mean[:, None]

    def start(self, cond: Tensor, eps: Tensor) -> Tensor:
        """Where the path begins, from the normalised noisy latent and noise, both (B, D, T)."""
        path = self.config.path
        return (
            eps
            if path == "noise"
            else cond + self.config.bridge_noise * eps
            if path == "bridge"
            else torch.zeros_like(cond)
        )

    def between(self, z0: Tensor, cond: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """z_t (B, D, T): on the path, at step t (B,)."""
        if self.config.path == "noise":
            return q_sample(self.schedule, z0, t, eps)
        way = ((t + 1) / self.schedule.steps)[:, None, None]  # of the path from z0: 1 at t = S - 1
        return (1 - way) * z0 + way * self.start(cond, eps)

    def denoise(self, z_t: Tensor, t: Tensor, cond: Tensor | None, guidance: float = 1.0) -> Tensor:
        """What the network takes for z0, all normalised. `guidance` over 1 pushes away from what it would say without
        the condition (classifier-free guidance, arXiv 2207.12598, eq. 6); 0 leaves the condition out."""
        prediction = self.unet(z_t, t, cond if guidance else None)
        if guidance not in (0.0, 1.0):
            without = self.unet(z_t, t, None)
            prediction = without + guidance * (prediction - without)
        return convert(self.schedule, prediction.float(), z_t, t, self.config.predicts, "z0")

    @torch.no_grad()
    def sample(
        self,
        z_noisy: Tensor,
        steps: int = 1,
        sampler: str | None = None,
        guidance: float = 1.0,
        noise: FrameNoise | None = None,
        callback: Callback = None,
    ) -> Tensor:
        """z of a noisy recording -> a clean one's, in `steps` steps of a sampler (default: ddim, or the bridge's own).

        `noise`: where it comes from, by default FrameNoise(seed=0): the same again for the same recording.
        """
        sampler = self.checked(sampler, steps)
        cond = self.normalise(z_noisy)

        def denoise(z_t: Tensor, t: Tensor) -> Tensor:
            return self.denoise(z_t, t, cond, guidance)

        return self.denormalise(self._run(denoise, cond, steps, sampler, callback, noise or FrameNoise()))

    def checked(self, sampler: str | None, steps: int) -> str:
        """The sampler's name, or the default's; an error if it does not fit this model."""
        path = self.config.path
        sampler = sampler or ("ddim" if path == "noise" else "bridge")
        if sampler not in SAMPLERS or (sampler == "bridge") != (path != "noise"):
            fit = [name for name in SAMPLERS if (name == "bridge") == (path != "noise")]
            raise WavelldmError(f"'{sampler}' does not sample this model; choose {' or '.join(fit)}")
        if path == "none" and steps != 1:
            raise WavelldmError(f"a predictor takes 1 step, not {steps}")
        return sampler

    def _run(
        self, denoise: Denoise, cond: Tensor, steps: int, sampler: str, callback: Callback, noise: FrameNoise
    ) -> Tensor:
        noise = replace(noise, draws=0)
        return SAMPLERS[sampler](denoise, self.start(cond, noise(cond)), self.schedule, steps, callback, noise)

    def initial_state(
        self, batch: int, steps: int = 1, sampler: str | None = None, noise: FrameNoise | None = None
    ) -> StreamState:
        """For `step`; the settings are those of `sample`. Each step of the sampler keeps its own state of the U-Net."""
        unets = tuple(self.unet.initial_state(batch) for _ in range(steps))
        return StreamState(self.checked(sampler, steps), unets, noise or FrameNoise())

    @torch.no_grad()
    def step(self, z_noisy: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """The next frames (B, D, any) of the noisy latent -> as many clean ones, state. Joined they equal `sample` of
        the whole, for every sampler: noise depends on a frame's place in the recording, not on the blocks."""
        before, after, cond = iter(state.unets), [], self.normalise(z_noisy)

        def denoise(z_t: Tensor, t: Tensor) -> Tensor:
            prediction, unet = self.unet.step(z_t, t, cond, next(before))
            after.append(unet)
            return convert(self.schedule, prediction.float(), z_t, t, self.config.predicts, "z0")

        z0 = self._run(denoise, cond, len(state.unets), state.sampler, None, state.noise)
        noise = replace(state.noise, first=state.noise.first + z_noisy.shape[-1])
        return self.denormalise(z0), StreamState(state.sampler, tuple(after), noise)

    @torch.no_grad()
    def fill(
        self,
        z_noisy: Tensor,
        missing: Tensor,
        known: Tensor,
        steps: int = 20,
        noise: FrameNoise | None = None,
        callback: Callback = None,
    ) -> Tensor:
        """Draw where `missing` (B, 1, T) is True and keep the clean latent `known` (B, D, T) elsewhere (RePaint)."""
        if self.config.path != "noise":
            raise WavelldmError("only a model that begins with pure noise can fill in what is missing")
        cond, kept = self.normalise(z_noisy), self.normalise(known)

        def denoise(z_t: Tensor, t: Tensor) -> Tensor:
            return self.denoise(z_t, t, cond)

        noise = replace(noise or FrameNoise(), draws=0)
        z0 = inpaint(denoise, kept, ~missing, self.schedule, steps, callback, noise, jump=5, resample=3)
        return self.denormalise(z0)
