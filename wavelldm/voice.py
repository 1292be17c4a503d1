"""How far a source decoder's sound lies from the original, as its training and the search for better codes count it."""

import torch
from torch import Tensor

from . import pitch
from .codec import Codec
from .perceptual import disturbance, unlike
from .source import TABLE
from .stft import POWER

NEAR = 1 / 24  # octaves: a pitch this near the right one is taken as it is, so that the envelopes learn to live with it
WEIGHTS = {"mel": 1.0, "loud": 10.0, "disturbance": 0.2, "unlike": 0.4, "pitch": 0.2}


def distances(codec: Codec, z_q: Tensor, wav: Tensor, mels, number: Tensor | None = None) -> dict:
    """z_q (B, D, T), wav (B, 1, N) -> `mel`: L1 of log-mels in several windows (`mels`, see MelLoss), `loud`: the same of compressed ones,
    `disturbance`, `unlike`: see perceptual.py, `pitch`: cross-entropy against the tracked pitch, the lowest one in pauses, whose
    harmonics lie too close to be heard as a tone. The pulses take the guessed pitch where it is nearly right, else the tracked one.
    `number` (T,): each frame's place in the noise, by default anywhere."""
    head, hop = codec.decoder, codec.preset.mel.hop
    path = pitch.track(pitch.scores(wav, codec.sr, hop))  # (B, T)
    voiced = path < pitch.COUNT
    path = torch.where(voiced, path, 0)
    logits, gains = head.parts(codec.upsampler(z_q))
    with torch.autocast(wav.device.type, enabled=False):
        right = pitch.candidates(wav.device)[path]
        guess = pitch.hertz(logits)
        far = voiced & ((guess / right).log2().abs() > NEAR)
        f0 = torch.where(far, right, guess).detach()
        if number is None:
            number = torch.randint(TABLE, (len(wav), 1), device=wav.device) + torch.arange(f0.shape[1], device=wav.device)
        decoded = head.join(head.frames(f0, head.turns(f0), gains, number))[..., : wav.shape[-1]]
        near = torch.exp(-0.5 * (torch.arange(pitch.COUNT, device=wav.device)[:, None] - path[:, None]).square())  # (B, S, T)
        missed = -(near / near.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1)
        pairs = [(mel(decoded, codec.sr), mel(wav, codec.sr)) for mel in mels]
        return {
            "pitch": missed.mean(),
            "mel": sum((a - b).abs().mean() for a, b in pairs) / len(pairs),
            "loud": sum(((POWER * a).exp() - (POWER * b).exp()).abs().mean() for a, b in pairs) / len(pairs),
            "disturbance": disturbance(decoded, wav, codec.sr).mean(),
            "unlike": unlike(decoded, wav, codec.sr).mean(),
        }
