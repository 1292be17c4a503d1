"""Options of a training run: one small dataclass for each network, whose fields are also the options of its command."""

from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import WavelldmError


def option(
    default: Any,
    help: str,
    kind: type | None = None,
    least: float | None = None,
    above: float | None = None,
    metavar: str | tuple[str, str] | None = None,
) -> Any:
    """A field with what its option's manual says, and its limits: `least` or more, or greater than `above`."""
    facts = {"help": help, "kind": kind or type(default), "least": least, "above": above, "metavar": metavar}
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class Options:
    """What every network is trained with. Each network adds its own options and changes the defaults."""

    batch_size: int = option(16, "crops in one step, over all processes", least=1)
    seconds: float = option(1.0, "length of a crop", above=0)
    num_workers: int = option(0, "processes that load data; 0 is fastest unless training is very fast", least=0)
    accumulate: int = option(
        1, "turns in which a batch goes through, one after the other, to need less memory", least=1
    )
    compile: bool = option(False, "compile the network first: minutes at the start, then faster on a GPU")
    start: str | None = option(
        None, "weights to begin with, of the same sizes, by name or path", str, metavar="WEIGHTS"
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            value, least, above = getattr(self, f.name), f.metadata["least"], f.metadata["above"]
            if least is not None and not value >= least:
                raise WavelldmError(f"{f.name} is {least:g} or more, not {value}")
            if above is not None and not value > above:
                raise WavelldmError(f"{f.name} is greater than {above:g}, not {value}")


@dataclass(frozen=True)
class HalfOptions(Options):
    """For networks that can be trained in 16-bit floats."""

    half: bool = option(True, "compute in bfloat16 where that is faster")


SNR = "mix noise at these dB on active speech"
CUTTING = "also train on speech with gaps of 50 to 450 ms"
