"""What a training run hears: one function from the command line's data options to lists of files, train and valid apart."""

from dataclasses import dataclass
from pathlib import Path

from . import data, synth
from .errors import DataError


@dataclass(frozen=True)
class Material:
    speech: list  # items to train on; recorded pairs if `recorded`
    noise: list | None
    valid_speech: list  # items held out
    valid_noise: list | None
    recorded: bool  # the noisy twins are recordings, so no noise is to be added


def gather(clean=None, noisy=None, manifest=None, minutes: float = 5.0) -> Material:
    """Folders of clean speech (and of its noisy recordings, under the same names), a manifest, a VoiceBank+DEMAND folder
    given as `clean`, or nothing: the embedded corpus."""
    if clean and manifest:
        raise DataError("give a folder of clean speech or a manifest, not both")
    if noisy and not clean:
        raise DataError("noisy recordings need their clean twins; give --clean_data_path too")
    if clean and (Path(clean) / "clean_trainset_28spk_wav").is_dir():
        return Material(data.voicebank(clean), None, data.voicebank(clean, "valid"), None, True)
    if clean and noisy:
        train, valid = data.hold_out(data.paired(clean, noisy))
        return Material(train, None, valid, None, True)
    table = manifest or synth.build_corpus(minutes=minutes)
    noises = [data.manifest(table, split, ("noise",))[0] for split in ("train", "valid")]
    if clean:
        train, valid = data.hold_out(data.folder(clean))
    else:
        train, valid = (data.manifest(table, split, ("speech",))[0] for split in ("train", "valid"))
    return Material(train, noises[0], valid, noises[1], False)
