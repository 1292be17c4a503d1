"""Overlapping windows of sound that arrives in blocks. What comes out does not depend on how it was cut."""

from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """A piece of a recording: `count` new frames, and the frames on both sides that they depend on."""

    frames: np.ndarray  # (..., (before + count + behind) * hop)
    before: int  # frames that lie before the new ones
    count: int  # new frames


class Windows:
    """Blocks (..., any) -> windows with `size` new frames, and `margin` on either side except at the ends.

    A frame is `hop` samples long; the last one of all may be shorter. For networks without a state: a frame's output is
    right if the network sees no further than `margin`.
    """

    def __init__(self, hop: int, margin: int, size: int = 512):
        self.hop, self.margin, self.size = hop, margin, size
        self._held, self._before = None, 0

    def push(self, block: np.ndarray) -> list[Window]:
        self._held = block if self._held is None else self.joined([self._held, block])
        ready = []
        while self._held.shape[-1] >= (self._before + self.size + self.margin) * self.hop:
            whole = self._held[..., : (self._before + self.size + self.margin) * self.hop]
            ready.append(Window(whole, self._before, self.size))
            drop = max(0, self._before + self.size - self.margin)
            self._held, self._before = self._held[..., drop * self.hop :], self._before + self.size - drop
        return ready

    def ready(self, counts: np.ndarray) -> np.ndarray:
        return (counts // self.hop - self.margin).clip(min=0) // self.size * self.size * self.hop

    def finish(self) -> list[Window]:
        """The windows at the end, where nothing follows the new frames or less than `margin`."""
        frames = 0 if self._held is None else -(-self._held.shape[-1] // self.hop)
        starts = range(self._before, frames, self.size)
        return [Window(self._held, start, min(self.size, frames - start)) for start in starts]

    def joined(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts, axis=-1)
