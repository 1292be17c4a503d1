"""What is damaged in a recording, of tensors: see `light/find.py`, which does it, and where all is explained."""

from torch import Tensor

from ..audio.files import as_float
from ..light import find as arrays
from ..light.find import Damage, entries, read_gaps, sentence

__all__ = ["Damage", "Finder", "entries", "find", "read_gaps", "sentence"]


class Finder(arrays.Finder):
    """The same with tensors: `push(block)`, and `finish()` says what was found in each channel."""

    def push(self, block: Tensor) -> None:
        """The next samples (C, any)."""
        super().push(as_float(block).detach().cpu().numpy())


def find(wav: Tensor, sr: int) -> tuple[Damage, ...]:
    """wav (C, N) -> what is damaged in each channel."""
    finder = Finder(sr)
    finder.push(wav)
    return finder.finish()
