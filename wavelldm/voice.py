"""How far a source decoder's sound lies from the original, as its training and the search for better codes count it."""

import torch
from torch import Tensor

from . import pitch
from .codec import Codec
from .source import TABLE
from .stft import POWER

NEAR = 1 / 24  # octaves: a pitch this near the right one is taken as it is, so that the envelopes learn to live with it
WEIGHTS = {"mel": 1.0, "loud": 10.0, "pitch": 0.2}


def distances(codec: Codec, z_q: Tensor, wav: Tensor, mels, number: Tensor | None = None) -> dict:
    """z_q (B, D, T), wav (B, 1, N) -> `mel`: L1 of log-mels in several windows (`mels`, see MelLoss), `loud`: the same of compressed ones,
    `pitch`: cross-entropy against the tracked pitch. The pulses take the guessed pitch where it is nearly right, else the tracked
    one. `number` (T,): each frame's place in the noise, by default anywhere."""
    head, hop = codec.decoder, codec.preset.mel.hop
    path = pitch.track(pitch.scores(wav, codec.sr, hop))  # (B, T)
    logits, gains = head.parts(codec.upsampler(z_q))
    with torch.autocast(wav.device.type, enabled=False):
        right = pitch.candidates(wav.device)[path.clamp(max=pitch.COUNT - 1)]
        guess = pitch.hertz(logits)
        far = (path < pitch.COUNT) & ((guess / right).log2().abs() > NEAR)
        f0 = torch.where(far, right, guess).detach()
        if number is None:
            number = torch.randint(TABLE, (len(wav), 1), device=wav.device) + torch.arange(f0.shape[1], device=wav.device)
        decoded = head.join(head.frames(f0, head.turns(f0), gains, number))[..., : wav.shape[-1]]
        near = torch.exp(-0.5 * (torch.arange(pitch.COUNT, device=wav.device)[:, None] - path[:, None]).square())  # (B, S, T)
        near = near / near.sum(1, keepdim=True).clamp_min(1e-6)
        missed = -(near * logits.log_softmax(1)).sum(1)[path < pitch.COUNT]
        pairs = [(mel(decoded, codec.sr), mel(wav, codec.sr)) for mel in mels]
        return {
            "pitch": missed.sum() / max(1, missed.numel()),
            "mel": sum((a - b).abs().mean() for a, b in pairs) / len(pairs),
            "loud": sum(((POWER * a).exp() - (POWER * b).exp()).abs().mean() for a, b in pairs) / len(pairs),
        }
