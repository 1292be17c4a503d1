"""Recordings of any length through the whole chain: codec's encoder, latent diffusion, mask network (or codec's decoder).

Blocks wav (C, any) go in, blocks come out, in constant memory. The encoder works on windows that overlap by what it sees;
U-Net and mask network keep their state. So what comes out equals what the networks make of the whole recording at once.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.blocks import resample_blocks, windows
from ..audio.files import fit
from ..codec.compress import MARGINS, decoder_margin, encoder_margin
from ..codec.model import Codec
from ..diffusion.latent import LatentDiffusion
from ..diffusion.samplers import FrameNoise
from ..errors import WavelldmError
from .mask import MaskNet
from .restore import restore_blocks

BLOCK = 256  # frames worked on at a time: 4 s
LIVE = 8  # while somebody waits


@dataclass(frozen=True)
class Settings:
    """What a user may choose."""

    steps: int = 1  # of the diffusion's sampler
    sampler: str | None = None  # default: the one the model was made for
    strength: float = 1.0  # the mask's gain in decibels, times this: 0 changes nothing
    background: float = 0.0  # share of what was removed that is put back
    seed: int = 0
    restore: bool = False  # fill dropouts and missing bands too
    rounded: bool = False  # without a mask: round the clean latent to codes before it is decoded

    def __post_init__(self):
        if not (self.steps >= 1 and 0 <= self.strength <= 4 and 0 <= self.background <= 1):
            raise WavelldmError(
                "steps begin at 1, strength lies between 0 and 4, and the kept background between 0 and 1"
            )


@dataclass(frozen=True)
class Look:
    """What a first look at a recording found."""

    gain: float = 1.0  # brings its speech to the level that the networks know
    cutoff: float | None = None  # Hz above which a band is missing


class Networks(nn.Module):
    """The networks of one denoiser. Without `mask` the codec's decoder speaks, which is the plain WaveLLDM. A mask network that was
    built without a guide works alone, and a diffusion beside it only restores what is missing."""

    def __init__(self, codec: Codec | None, diffusion: LatentDiffusion | None, mask: MaskNet | None):
        super().__init__()
        if diffusion is None and mask is None or diffusion is not None and codec is None:
            raise WavelldmError("a denoiser needs a mask network, or a diffusion and its codec")
        self.codec, self.diffusion, self.mask = codec, diffusion, mask
        self.sr = mask.config.sr if mask is not None else codec.sr
        self.guided = mask is not None and mask.config.latent_dim > 0
        if self.guided and diffusion is None:
            raise WavelldmError("this mask network is guided by a latent; give its codec and diffusion too")
        if mask is not None and codec is not None and codec.hop != mask.config.hop:
            raise WavelldmError(
                f"a latent frame has {codec.hop} samples and a mask frame {mask.config.hop}; make them equal"
            )


def latents(chain: Networks, blocks, settings: Settings, size: int, margin: int = 0):
    """wav blocks (C, any) -> (clean latent (C, D, count), the window of samples it comes from, frames before, count). The window has
    at least `margin` frames on either side, except at the ends."""
    codec, state = chain.codec, None
    for wav, before, count in windows(blocks, codec.hop, max(margin, encoder_margin(codec)), size):
        z = codec.encode(wav[:, None], codec.sr)[..., before : before + count]
        if state is None:
            noise = FrameNoise(settings.seed, shared=True)
            state = chain.diffusion.initial_state(len(z), settings.steps, settings.sampler, noise)
        z, state = chain.diffusion.step(z, state)
        yield z, wav, before, count


def by_mask(chain: Networks, blocks, settings: Settings, size: int):
    """wav blocks (C, any) -> rows (2 C, n): the cleaned sound, and the gain of the highest bins for each of its samples."""
    mask, hop, side, ahead = chain.mask, chain.mask.config.hop, chain.mask.side, chain.mask.config.ahead
    state = tail = level = None
    heard = made = 0
    if not chain.guided:
        source = ((None, *window) for window in windows(blocks, hop, 1 + ahead, size))
    else:
        source = latents(chain, blocks, settings, size, 1 + ahead)
    ramp = torch.arange(1, hop + 1) / hop
    for z, wav, before, count in source:
        first, last = (
            before * hop - side,
            (before + count + ahead) * hop + side,
        )  # of the window: the samples these frames see
        seen = fit(F.pad(wav[:, max(0, first) : last], (max(0, -first), 0)), last - first)
        spec = mask.frames(seen)  # (C, count + ahead, bins)
        cleaned, gain, state = mask.clean(spec, None if z is None else chain.diffusion.normalise(z), state)
        cleaned, gain = adjust(spec[:, :count], cleaned, gain, settings)
        out, tail = mask.overlap(cleaned, tail)  # (C, count * hop)
        top = gain.abs()[..., -mask.config.n_fft // 8 :].mean(-1).clamp(max=1)  # (C, count), of the highest quarter
        points = torch.cat([top[:, :1] if level is None else level, top], dim=1)
        rows = torch.cat([out, (points[:, :-1, None] * (1 - ramp) + points[:, 1:, None] * ramp).flatten(1)])
        rows = rows[:, side:] if level is None else rows
        level = top[:, -1:]
        heard += min(count * hop, wav.shape[1] - before * hop)
        yield rows[:, : heard - made]
        made += min(rows.shape[1], heard - made)
    if level is not None and heard > made:
        rest = tail[0][:, :side] / tail[1][:side].clamp_min(1e-3)
        yield torch.cat([rest, level.expand(-1, side)])[:, : heard - made]


def adjust(spec: Tensor, cleaned: Tensor, mask: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """The cleaned spectrum, and the mask that made it, as the user wants them."""
    if settings.strength != 1:
        harder, alone = mask.abs().clamp_min(1e-4) ** (settings.strength - 1), spec * mask
        cleaned = harder * (alone + min(settings.strength, 1.0) * (cleaned - alone))
        mask = mask * harder
    kept = settings.background
    return (cleaned + kept * (spec - cleaned), mask + kept * (1 - mask)) if kept else (cleaned, mask)


def by_decoder(chain: Networks, blocks, settings: Settings, size: int):
    """wav blocks (C, any) -> rows (2 C, n): the decoded clean latents, and zeros: above the codec's band there is nothing."""
    codec, margin, state, heard, made = chain.codec, decoder_margin(chain.codec), None, 0, 0

    def frames():
        nonlocal heard
        for z, wav, before, count in latents(chain, blocks, settings, size):
            heard += min(count * codec.hop, wav.shape[1] - before * codec.hop)
            yield codec.quantise(z)[0] if settings.rounded else z

    for z, before, count in windows(frames(), 1, margin, max(size, MARGINS * margin)):
        state = state or codec.initial_window_state(len(z))
        out, state = codec.decode_window(z, before, count, state)
        out = out[:, 0, : heard - made]
        made += out.shape[1]
        yield torch.cat([out, torch.zeros_like(out)])


@torch.no_grad()
def clean_blocks(
    chain: Networks, blocks, sr: int, settings: Settings = Settings(), look: Look = Look(), size: int = BLOCK, way=None
):
    """wav blocks (C, any) at any rate -> cleaned blocks, as many samples in all. `way`: another than by_mask or by_decoder.

    The networks hear the sound at their own rate and level. What lies above their band comes from the original, turned down
    as the mask turns down its highest bins.
    """
    if settings.restore and (chain.diffusion is None or chain.diffusion.config.path != "noise"):
        raise WavelldmError("only a model with a diffusion in it can restore what is missing; choose another --model")
    kept, lower = (
        [],
        [],
    )  # blocks of the original, and of the same at the networks' rate, that wait for their cleaned twins

    def heard():
        for block in blocks:
            kept.append(block.float())
            yield look.gain * block.float()

    def noisy():
        for block in resample_blocks(heard(), sr, chain.sr):
            lower.append(block)
            yield block

    def rows():
        held = torch.zeros(0, 0)
        for part in (way or (by_mask if chain.mask is not None else by_decoder))(chain, noisy(), settings, size):
            held = torch.cat([*([held] if len(held) else []), *lower], dim=1)
            lower.clear()
            n = part.shape[1]
            yield torch.cat([part, held[:, :n]])  # (3 C, n): cleaned, gain of what lies above, what was heard
            held = held[:, n:]

    source = rows()
    if settings.restore:
        source = restore_blocks(chain.codec, chain.diffusion, source, look.cutoff, settings.steps, settings.seed)
    waiting = torch.zeros(0, 0)
    for part in resample_blocks(source, chain.sr, sr):
        waiting = torch.cat([*([waiting] if len(waiting) else []), *kept], dim=1)
        kept.clear()
        n = min(part.shape[1], waiting.shape[1])
        cleaned, above, below = part[:, :n].chunk(3)
        original, waiting = waiting[:, :n], waiting[:, n:]
        if n:
            yield (cleaned + (above.clamp(0, 1) * (look.gain * original - below) if sr > chain.sr else 0)) / look.gain
