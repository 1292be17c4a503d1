"""Sound before any network: files, streams in blocks, spectra, mels, pitch and levels.

Read `files` first (a recording is a tensor `wav`), then `stft` and `mel`; `blocks`, `pitch`, `levels` and `loudness`
when they are needed.
"""

from .blocks import resample_blocks
from .files import (
    SUFFIXES,
    AudioInfo,
    as_float,
    check_rate,
    fit,
    info,
    load,
    read_blocks,
    resample,
    save,
    save_blocks,
    sound_files,
    writing,
)
from .levels import active_level, active_power, limit_together, mix_at_snr
from .mel import MELS, LogMel, MelConfig, mel_to_wav

__all__ = [
    "MELS",
    "SUFFIXES",
    "AudioInfo",
    "LogMel",
    "MelConfig",
    "active_level",
    "active_power",
    "as_float",
    "check_rate",
    "fit",
    "info",
    "limit_together",
    "load",
    "mel_to_wav",
    "mix_at_snr",
    "read_blocks",
    "resample",
    "resample_blocks",
    "save",
    "save_blocks",
    "sound_files",
    "writing",
]
