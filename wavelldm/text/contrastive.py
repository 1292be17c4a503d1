"""Text and sound in one space: the two encoders learn together which caption belongs to which sound.

CLAP (arXiv 2206.04769, eq. 1 to 4; MS-CLAP 2023: arXiv 2309.05767): both are projected to vectors of length one, and in
a batch every sound is to be nearest to its own caption, and every caption to its own sound. How sharply the nearest is
told from the next is learnt too (the temperature).
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.files import resample
from ..errors import WavelldmError
from .encoder import TextConfig, TextEncoder, last_real
from .htsat import HTSAT, HTSATConfig


@dataclass(frozen=True)
class PairConfig:
    text: TextConfig = field(default_factory=TextConfig)
    audio: HTSATConfig = field(default_factory=HTSATConfig)
    joint: int = 128  # numbers of the common space; 1024 in MS-CLAP 2023
    dropout: float = 0.1  # of the projections


class Projection(nn.Module):
    """Into the common space, as MS-CLAP does it: linear, and a correction of that through a GELU, then layer norm."""

    def __init__(self, a: int, b: int, dropout: float):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(a, b, bias=False), nn.Linear(b, b, bias=False)
        self.layer_norm, self.drop = nn.LayerNorm(b), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear1(x)
        return self.layer_norm(x + self.drop(self.linear2(F.gelu(x))))


class TextAudioPair(nn.Module):
    """`embed_text` and `embed_sound` give vectors of length one; their products say how well the two fit."""

    Config = PairConfig

    def __init__(self, config: PairConfig):
        super().__init__()
        c = self.config = config
        self.text, self.audio = TextEncoder(c.text), HTSAT(c.audio)
        self.text_projection = Projection(c.text.width, c.joint, c.dropout)
        self.audio_projection = Projection(self.audio.width, c.joint, c.dropout)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def scale(self) -> Tensor:
        """One over the temperature, 100 at most."""
        return self.log_scale.exp().clamp(max=100)

    def of_tokens(self, numbers: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L) and which are real -> a vector for each token (B, L, C), and for each caption (B, J)."""
        states = self.text(numbers)
        return states, F.normalize(self.text_projection(last_real(states, real)), dim=-1)

    def of_mel(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel (B, M, F) -> vectors (B, J) and curves of the classes (B, classes, times)."""
        embedding, curves = self.audio(log_mel)
        return F.normalize(self.audio_projection(embedding), dim=-1), curves

    @torch.no_grad()
    def embed_text(self, texts: list[str]) -> Tensor:
        """Captions -> (B, J)."""
        return self.of_tokens(*self.text.tokens(texts))[1]

    @torch.no_grad()
    def embed_sound(self, wav: Tensor, sr: int) -> Tensor:
        """wav (B, N) -> (B, J)."""
        mel = self.audio.mel
        wav = resample(wav, sr, mel.config.sr)[:, None].to(self.log_scale.device)
        return self.of_mel(mel(wav, mel.config.sr))[0]


def contrastive_loss(
    sound: Tensor, text: Tensor, scale: Tensor, same: Tensor | None = None, wrong: Tensor | None = None
) -> Tensor:
    """CLAP, eq. 3 and 4, on vectors (B, J). `same` (B,): what has equal numbers is alike, and no mistake.

    `wrong` (H, J): captions that belong to no sound; each sound has to find its own among these too (arXiv 2210.01936,
    section 4).
    """
    fit = scale * sound @ text.T  # (B, B)
    right = torch.arange(len(fit), device=fit.device)
    if same is not None:
        alike = (same[:, None] == same) & (right[:, None] != right)
        fit = fit.masked_fill(alike, -1e4)
    more = fit if wrong is None else torch.cat([fit, scale * sound @ wrong.T], 1)  # (B, B + H)
    return 0.5 * (F.cross_entropy(more, right) + F.cross_entropy(fit.T, right))


PROMPT = "the sound of {}"


def tag(pair: TextAudioPair, wav: Tensor, sr: int, labels: list[str], prompt: str = PROMPT) -> list[tuple[str, float]]:
    """The labels by how well they fit a recording wav (C, N), best first, with probabilities that sum to one."""
    if not labels:
        raise WavelldmError("there is no label to choose from; give one or more")
    if wav.shape[-1] < sr // 20:
        raise WavelldmError("this recording is shorter than 50 ms, which is too short to tell; give a longer one")
    sound = pair.embed_sound(wav.mean(0, keepdim=True), sr)
    text = pair.embed_text([prompt.format(label) for label in labels])
    chance = (pair.scale * sound @ text.T)[0].softmax(0).tolist()
    return sorted(zip(labels, chance), key=lambda row: -row[1])
