"""Layers that all networks are built from, each for whole signals and, if causal, for streams.

Read `layers` first: its docstring says how everything in wavelldm streams (`initial_state`, `step`). Then `attention`.
"""

from .attention import RotaryAttention, rotary
from .layers import (
    Chain,
    ChannelNorm,
    Conv1d,
    ConvNeXtBlock,
    ConvTranspose1d,
    Residual,
    count_parameters,
    require_causal,
)

__all__ = [
    "Chain",
    "ChannelNorm",
    "Conv1d",
    "ConvNeXtBlock",
    "ConvTranspose1d",
    "Residual",
    "RotaryAttention",
    "count_parameters",
    "require_causal",
    "rotary",
]
