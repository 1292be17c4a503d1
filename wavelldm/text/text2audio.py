"""A sentence in, a sound out: the text encoder, the diffusion over sound latents, the VAE's decoder, Griffin-Lim.

maker = load_maker()
wav, sr = maker.generate("two low beeps, then rain", seconds=4, seed=1)
"""

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import weights
from ..audio.mel import mel_to_wav
from ..diffusion.samplers import ddim
from ..errors import WavelldmError
from ..progress import progress_bar
from .conditioned import Condition, TextDiffusion, guided, in_windows
from .contrastive import TextAudioPair
from .encoder import words_of
from .latent import SoundVAE

DEFAULT = "scenes16k-diffusion"  # what ships
PAIR = "scenes16k-pair"
LONGEST = 60.0  # seconds
SHORTEST = 0.25
LEARNT = 7.0  # seconds of the longest scenes of training; beyond, windows are joined
WINDOW = (100, 76)  # places of a window, and from one to the next
ROUNDS = 32  # of Griffin-Lim


@dataclass
class SoundMaker:
    """The three networks that turn text into sound."""

    pair: TextAudioPair
    vae: SoundVAE
    diffusion: TextDiffusion

    @property
    def sr(self) -> int:
        return self.vae.config.mel.sr

    @torch.no_grad()
    def condition(self, texts: list[str]) -> Condition:
        """What the diffusion is told about captions."""
        numbers, real = self.pair.text.tokens(texts)
        states, whole = self.pair.of_tokens(numbers, real)
        return states, real, whole

    def check(self, text: str, what: str = "the text") -> None:
        """Refuse what cannot be understood; warn of words that were never learnt."""
        if not text.strip():
            raise WavelldmError(f"{what} is empty; say what is to be heard, such as 'a low hum with rain'")
        encoder = self.pair.text
        count, room = len(encoder.tokenizer.encode(text[:20_000])) + 1, encoder.config.context
        if count > room:
            raise WavelldmError(f"{what} is too long ({len(text)} characters); {room - 1} tokens fit, say it shorter")
        unknown = encoder.unknown(text)
        if encoder.words and len(unknown) == len(set(words_of(text))):
            some = ", ".join(sorted(w for w in encoder.words if len(w) > 3)[::3])
            missing = f"'{unknown[0][:40]}' and the others" if len(unknown) > 1 else f"'{(unknown or [text])[0][:40]}'"
            raise WavelldmError(
                f"no word of {what} is known to this model, not {missing}; it was trained on words such as {some}"
            )
        if encoder.words and unknown:
            names = ", ".join(f"'{word[:40]}'" for word in unknown[:8])
            warnings.warn(
                f"this model never met {names} in training, so the sound may leave that out", UserWarning, stacklevel=3
            )

    @torch.no_grad()
    def latents(
        self,
        texts: list[str],
        seconds: float = 4.0,
        guidance: float = 3.5,
        steps: int = 50,
        seed: int = 0,
        negative: str = "",
        show: bool = True,
    ) -> Tensor:
        """Captions -> normalised latents (B, D, T), one noise for each caption of the batch."""
        device = self.diffusion.nothing.device
        generator = torch.Generator().manual_seed(seed)
        places = math.ceil(seconds * self.vae.rate)
        noise = torch.randn((len(texts), self.diffusion.config.size, places), generator=generator).to(device)
        against = self.condition([negative] * len(texts)) if negative else None
        denoise = guided(self.diffusion, self.condition(texts), guidance, against)
        if places > LEARNT * self.vae.rate:
            denoise = in_windows(denoise, *WINDOW)
        with progress_bar(total=steps, desc="sound", unit="step", show=show) as bar:
            return ddim(denoise, noise, self.diffusion.schedule, steps, lambda *_: bar.update() and None)

    @torch.no_grad()
    def sound(self, z: Tensor, seconds: float) -> Tensor:
        """Normalised latents (B, D, T) -> wav (B, N)."""
        log_mel = self.vae.decode(self.vae.denormalise(z))
        n = round(seconds * self.sr)
        count = 1 + n // self.vae.config.mel.hop  # frames of so many samples
        log_mel = F.pad(log_mel, (0, max(0, count - log_mel.shape[-1])), mode="replicate")[..., :count]
        wav = mel_to_wav(log_mel, self.vae.config.mel, ROUNDS, length=n)[:, 0]
        return wav * (0.99 / wav.abs().amax(1, keepdim=True).clamp_min(0.99))

    def generate(
        self,
        text: str,
        seconds: float = 4.0,
        guidance: float = 3.5,
        steps: int = 50,
        seed: int = 0,
        negative: str = "",
    ) -> tuple[Tensor, int]:
        """What the text says -> wav (1, N) and its rate. The same arguments always give the same sound.

        `guidance`: how strictly to follow the text (1: as trained; 0: not at all). `negative`: what not to hear.
        """
        if not SHORTEST <= seconds <= LONGEST:
            raise WavelldmError(f"a sound lasts {SHORTEST:g} to {LONGEST:g} seconds, not {seconds:g}; change seconds")
        if not 0 <= guidance <= 20:
            raise WavelldmError(f"guidance is a number from 0 to 20, not {guidance:g}; 3.5 is usual")
        self.check(text)
        if negative != "":
            self.check(negative, "the negative text")
        return self.sound(self.latents([text], seconds, guidance, steps, seed, negative), seconds), self.sr


def load_maker(name: str | Path = DEFAULT, device: str = "cpu") -> SoundMaker:
    """The networks that belong together, by the name or path of the diffusion's weights."""
    diffusion = weights.load(name, TextDiffusion, device)
    pair = weights.load(weights.needed(name, "pair"), TextAudioPair, device)
    vae = weights.load(weights.needed(name, "vae"), SoundVAE, device)
    diffusion.rate = vae.rate
    return SoundMaker(pair, vae, diffusion)


kept = lru_cache(2)(load_maker)


def named_after(text: str) -> str:
    """A file name from the first words of a text."""
    return ("-".join(words_of(text))[:60].strip("-") or "sound") + ".wav"


def generate(
    text: str,
    seconds: float = 4.0,
    guidance: float = 3.5,
    steps: int = 50,
    seed: int = 0,
    negative: str = "",
    model: str = DEFAULT,
    device: str = "cpu",
) -> tuple[Tensor, int]:
    """Text -> wav (1, N) and its rate, by the model that ships or one of your own."""
    return kept(model, device).generate(text, seconds, guidance, steps, seed, negative)
