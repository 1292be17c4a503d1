"""Recipes that made the weights that ship: `wavelldm train codec --recipe shipped`, `make train-codec`.

Same numbers, same seeds. On the same recordings they give weights much like those that ship; what differs is said at
each recipe. The hours are those of one CPU thread.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ..data.corpora import Corpus
from ..errors import WavelldmError
from . import parallel, task_of
from .loop import fit, write_weights
from .presets import preset


@dataclass(frozen=True)
class Leg:
    """One run of a recipe; each leg starts from the weights of the one before."""

    folder: str  # of the run, within that of the recipe
    steps: int
    plan: dict = field(default_factory=dict)  # what differs from the network's usual plan
    changes: tuple[str, ...] = ()  # to the sizes of the preset
    options: dict = field(default_factory=dict)  # what differs from the network's usual options
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """All legs of one network, the sizes that they have in common, and the hours that they took."""

    preset: str
    legs: tuple[Leg, ...]
    hours: float
    eight_bits: bool = False  # the weights are kept in bytes
    six_bits: tuple[str, ...] = ()  # words in the names of those that use fewer values, see `weights.save`
    start: str | None = None  # weights that the first leg begins with


def _codec() -> Recipe:
    """The first leg was stopped at 18,000 of 30,000 steps, so its cosine ends early here. The weights that ship had an
    older pitch tracker in the first leg, and the losses that listen like PESQ and ESTOI only from the third on. In the
    last one the decoder learns to correct its spectra, and codes stay as they are."""
    plain, plan = ("correction=0",), {"warmup": 300, "valid_every": 1000}
    options = {"batch_size": 8, "seconds": 0.512}
    alone = {"batch_size": 4, "seconds": 1.024, "decoder_alone": True}
    legs = (
        Leg("voice1", 18_000, plan | {"final": 0.4}, plain, options),
        Leg("voice2", 15_000, plan | {"lr": 7e-4}, plain, options, seed=1),
        Leg("voice3", 19_500, plan | {"lr": 8e-4}, plain, options, seed=2),
        Leg("voice4", 10_000, {"lr": 6e-4, "warmup": 100, "ema": 0.998, "valid_every": 500}, (), alone, seed=72),
    )
    return Recipe("voice16k", legs, hours=3.2, eight_bits=True, six_bits=("widen", "narrow", "decoder"))


def _live() -> Recipe:
    """Causal, begun as `voice16k`. In the second leg the decoder learns to correct its spectra, and codes stay as they
    are."""
    options = {"batch_size": 4, "seconds": 1.024, "lost": 0.3}
    plan = {"lr": 8e-4, "warmup": 300, "valid_every": 1000}
    alone = {"lr": 6e-4, "warmup": 100, "ema": 0.998, "valid_every": 500}
    small = "decoder.correction", "decoder.body.0", "decoder.body.2."  # in 63 values, so that a page loads fast
    legs = (
        Leg("live", 34_000, plan, ("correction=0",), options),
        Leg("live2", 14_000, alone, (), options | {"decoder_alone": True}, seed=73),
    )
    return Recipe("voice16k-live", legs, hours=2.5, eight_bits=True, six_bits=small, start="voice16k")


def _looks() -> Recipe:
    """The weights that ship began with 1,500 steps from 1.5e-3 on a cosine of their own. In their first leg the decoder
    had no correction yet, in the second one that was still learning."""
    plan = {"ema": 0.99, "valid_every": 200, "warmup": 50}
    legs = (
        Leg("looks", 3_000, plan | {"lr": 1.2e-3, "warmup": 100, "ema": 0.995}),
        Leg("looks2", 1_200, plan | {"lr": 6e-4}, seed=81),
        Leg("looks3", 600, plan | {"lr": 4e-4}, seed=82),
    )
    return Recipe("voice16k", legs, hours=1.2, eight_bits=True)


def _mask() -> Recipe:
    """Three blocks more in the fourth leg, twice the channels in the fifth, the filter over earlier frames in the
    sixth, a frame ahead in the seventh; varied voices and longer crops in the eighth, even voices as well in the ninth;
    these two keep their last step. The weights that ship had the losses that listen like PESQ and ESTOI only from the
    fourth leg on, products in bfloat16 from the fifth on, and 400 steps more at 5e-4 after the fifth."""

    def leg(number, steps, seed, blocks, width, taps, ahead, batch_size, options=None, **plan) -> Leg:
        changes = (f"blocks={blocks}", f"width={width}", f"taps={taps}", f"ahead={ahead}")
        return Leg(f"mask{number}", steps, plan, changes, {"batch_size": batch_size} | (options or {}), seed)

    varied = {"seconds": 4.0, "half": True, "harmless": 0.1, "varied": 0.7}
    last = {"lr": 3e-4, "warmup": 100, "final": 0.01, "ema": 0.998}

    legs = (
        leg(1, 6_000, 0, 3, 48, 0, 0, 4, warmup=200, final=0.3, ema=0.998),
        leg(2, 2_200, 1, 3, 48, 0, 0, 4, lr=6e-4, warmup=100, ema=0.998, valid_every=550),
        leg(3, 18_000, 2, 3, 48, 0, 0, 4, warmup=300, valid_every=1000),
        leg(4, 7_800, 4, 6, 48, 0, 0, 4, warmup=300),
        leg(5, 5_000, 5, 6, 96, 0, 0, 8, warmup=200, final=0.1),
        leg(6, 2_900, 8, 6, 96, 4, 0, 8, lr=8e-4, warmup=100, final=0.01, valid_every=400),
        leg(7, 8_000, 11, 6, 96, 4, 1, 8, lr=8e-4, warmup=100, final=0.01, valid_every=500),
        leg(8, 2_600, 52, 6, 96, 4, 1, 4, varied, **last, valid_every=2_600),
        leg(9, 2_500, 62, 6, 96, 4, 1, 4, varied | {"even": True}, **last, valid_every=2_500),
    )
    return Recipe("base16k", legs, hours=20.5, eight_bits=True)


def _studio() -> Recipe:
    """`base16k` before its last two legs, grown: time both ways, the filter over all bands and three frames further
    ahead. It begins where that stood. The first two legs leave out the third of the speech with the loudest pauses,
    which was a mistake; the others have all of it. The fifth varies voices and has longer crops, the sixth has even
    voices as well. The last three keep their last step: the rate falls to nothing, and 48 crops are too few to choose
    by. `benchmarks/studio/train.py` is faster."""
    everything = {"batch_size": 4, "seconds": 2.0, "half": True, "harmless": 0.1}
    clean, grown = everything | {"hissy": 0.33}, ("both_ways=True", "full=True", "ahead=4")
    plan = {"ema": 0.998, "valid_every": 200, "final": 0.01}
    brief = {"ema": 0.99, "valid_every": 100}
    varied, last = everything | {"batch_size": 2, "seconds": 4.0, "varied": 0.7}, plan | {"lr": 2.5e-4, "warmup": 100}
    legs = (
        Leg("studio1", 5_600, plan | {"lr": 5e-4, "warmup": 50, "final": 0.02}, grown, clean, seed=21),
        Leg("studio2", 6_200, plan | {"lr": 2.5e-4, "warmup": 200}, grown, clean, seed=33),
        Leg("studio3", 400, brief | {"lr": 1e-4, "warmup": 50}, grown, everything, seed=41),
        Leg("studio4", 1_700, plan | {"lr": 1.5e-4, "warmup": 100, "valid_every": 1_700}, grown, everything, seed=45),
        Leg("studio5", 2_900, last | {"valid_every": 2_900}, grown, varied, seed=51),
        Leg("studio6", 3_600, last | {"valid_every": 3_600}, grown, varied | {"even": True}, seed=61),
    )
    return Recipe("base16k", legs, hours=11.2, eight_bits=True, start="base16k-mask")


def _diffusion() -> Recipe:
    """On the latents of the codec that ships."""
    options = {"batch_size": 16, "seconds": 1.5, "hours": 12.0, "decoded": 1.0}
    plan = {"warmup": 300, "valid_every": 1000, "save_every": 500}
    return Recipe("voice16k", (Leg("diffusion", 8_000, plan, options=options),), hours=0.7, eight_bits=True)


def _ladder(folder: str, sizes: str, steps: int, seconds: float, eight_bits: bool = False, **options) -> Recipe:
    leg = Leg(folder, steps, {"warmup": 200}, options={"batch_size": 8, "seconds": seconds, **options})
    return Recipe(sizes, (leg,), hours=0.25, eight_bits=eight_bits)


def _prior() -> Recipe:
    plan = {"ema": 0.9995, "valid_every": 1000}
    return Recipe("base16k", (Leg("prior", 6_000, plan, options={"batch_size": 8}),), hours=0.5)


def _segan() -> Recipe:
    """Narrower than its preset."""
    plan, changes = {"lr": 4e-4, "warmup": 200, "final": 0.05}, ("widths=8,16,16,32,32,64,64,128",)
    return Recipe("base16k", (Leg("segan", 5_000, plan, changes, {"batch_size": 8}),), hours=0.5, eight_bits=True)


def _waveform() -> Recipe:
    """Narrower than its preset. The weights that ship were chosen by WB-PESQ itself, where now an estimate of it
    chooses."""
    leg = Leg("waveform", 6_000, {"lr": 1e-3}, ("widths=32,64,96,160",), {"batch_size": 8})
    return Recipe("base16k", (leg,), hours=0.5, eight_bits=True)


def _latent() -> Recipe:
    """The weights that ship had a rate of 6 kbit/s in the first minutes of the first leg. In the second leg the decoder
    alone learns."""
    plan = {"warmup": 100, "ema": 0.998}
    legs = (Leg("latent1", 2_500, plan), Leg("latent2", 10_000, plan | {"lr": 7e-4}, options={"frozen": True}, seed=1))
    return Recipe("base16k", legs, hours=0.9, eight_bits=True, six_bits=("encoder", "decoder"))


def _filler() -> Recipe:
    """First it learns what to expect, then to draw as well."""
    legs = (
        Leg("filler1", 11_000, {"warmup": 100, "ema": 0.998, "valid_every": 1000}, options={"drawn": 0.0}),
        Leg("filler2", 12_000, {"lr": 8e-4, "ema": 0.9995}),
    )
    return Recipe("base16k", legs, hours=2.0, eight_bits=True)


RECIPES = {  # network -> name -> recipe
    "codec": {"shipped": _codec(), "shipped-live": _live()},
    "looks": {"shipped": _looks()},
    "diffusion": {"shipped": _diffusion()},
    "mask": {"shipped": _mask(), "shipped-studio": _studio()},
    "latent": {"shipped": _latent()},
    "filler": {"shipped": _filler()},
    "prior": {"shipped": _prior()},
    "segan": {"shipped": _segan()},
    "waveform": {"shipped": _waveform()},
    "vocoder": {"shipped": _ladder("vocoder", "ladder", 9_000, 1.0)},
    "vae": {
        "shipped": _ladder("vae", "ladder", 1_500, 1.28),
        "shipped-wide": _ladder("wide", "ladder-wide", 1_200, 1.28, eight_bits=True),
        "shipped-words": _ladder("words", "ladder-words", 1_200, 1.28, eight_bits=True),
    },
    "refinement": {"shipped": _ladder("refinement", "ladder", 2_500, 1.28, vae="ladder-vae")},
    "autoencoder": {"shipped": _ladder("autoencoder", "ladder", 4_500, 2.0, eight_bits=True)},
}


def follow(
    network: str,
    name: str,
    corpus: Corpus,
    folder: str | Path,
    device: torch.device | str = "cpu",
    progress: bool = True,
    **options,
) -> dict:
    """Train a network by a recipe, leg after leg; what is done already is not done again. `options`: what the recipe
    leaves open, such as the weights that it builds on. Returns what `fit` does of the last leg."""
    if name not in RECIPES[network]:
        raise WavelldmError(f"there is no recipe '{name}' for {network}; choose one of {', '.join(RECIPES[network])}")
    recipe, task_class = RECIPES[network][name], task_of(network)
    corpus = replace(corpus, rooms=[])  # the weights that ship were trained on computed rooms
    sizes, start, result = preset(recipe.preset), recipe.start, {}
    if torch.device(device).type == "cpu":
        torch.set_num_threads(1)  # so that sums come out as they did
    for leg in recipe.legs:
        chosen = task_class.Options(**leg.options | options)
        task = task_class.create(sizes, list(leg.changes), chosen, device, leg.seed)
        if start is not None:
            task.start_from(str(start))
        task.read(corpus)
        plan = task_class.plan(leg.steps, **leg.plan)
        result = fit(task, plan, Path(folder) / leg.folder, progress)
        if result["stopped"]:
            break
        start = Path(folder) / leg.folder / f"{weights_name(network, sizes.name)}.safetensors"
        write_weights(task, plan, start.parent, start.stem, recipe.eight_bits, recipe.six_bits)
        parallel.wait()  # the other processes read it
    return result


def weights_name(network: str, sizes: str) -> str:
    """What the weights of a network of a preset are called."""
    return sizes if network == "codec" else f"{sizes}-{network}"
