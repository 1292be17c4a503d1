"""`wavelldm train NETWORK`: train a network. Each has its own options, which come from its task once it is named."""

import argparse
from dataclasses import Field, fields, replace
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from ..errors import WavelldmError
from ..training import NETWORKS, task_of
from .options import EXIT, SEED, Manual, Parser, command, number, show, whole

if TYPE_CHECKING:
    import torch

    from ..data.corpora import Material

DATA = (
    "The data are folders of clean speech (or of its shards, .tar or .parquet), a manifest, or, if none are given, the "
    "embedded corpus. Ctrl-C saves; the same command goes on where it stopped."
)
ABOUT = (
    f"Train a network. {DATA} First the codec, then the diffusion over its latents, then perhaps a mask network that "
    "the diffusion guides; all others stand alone. The folder of a run gets the weights, checkpoints, log.csv and "
    "TensorBoard logs; `wavelldm denoise --model` takes the weights. Every network also takes --json and --debug."
)
EXAMPLES = """examples:
  wavelldm train codec --preset tiny --steps 300
  wavelldm train diffusion --preset tiny --codec runs/codec/tiny --steps 300
  wavelldm denoise noisy.wav --model runs/diffusion/tiny-diffusion
  wavelldm train mask --preset tiny --diffusion runs/diffusion/tiny-diffusion --steps 300
  wavelldm train diffusion --clean_data_path clean --noisy_data_path noisy --add_random_cutting \\
      --batch_size 16 --lr 2e-5 --use_scheduler --epochs 100 --num_workers 16
  torchrun --nproc-per-node 4 -m wavelldm train codec --manifest table.tsv     four GPUs

The options of a network: wavelldm train NETWORK --help"""
TEXT2AUDIO = "text to sound: both encoders, the latent of sounds, the diffusion, as one YAML file says"
TEXT2AUDIO_ABOUT = (
    "Train all that `wavelldm generate` and `wavelldm tag` need, one network after the other, as one YAML file says. "
    "The data are synthesised scenes with captions, or a folder of sounds with a CSV of captions (AudioCaps, Clotho). "
    "Ctrl-C saves; the same command goes on where it stopped."
)
TEXT2AUDIO_EXAMPLES = """  wavelldm train text2audio -c configs/text2audio.yaml
  wavelldm generate "a bell, then rain" --model runs/text2audio/diffusion/mine-diffusion"""
OPEN = {
    "all": ("num_workers", "half"),
    "diffusion": ("codec",),
    "filler": ("latent",),
    "refinement": ("vae",),
}  # what no recipe decides
PLANNED = ("preset", "set", "lr", "use_scheduler", "epochs", "steps", "ema", "seed")  # what all recipes do


class NetworkParser(Parser):
    """Learns the options of its network when it is used, as torch is imported for that."""

    network: str | None = None

    def parse_known_args(
        self, args: list[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if self.network is not None:
            add_options(self, self.network)
            self.network = None
        return super().parse_known_args(args, namespace)


def add(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser(
        "train",
        help="train a network",
        description=fill(ABOUT, 106),
        formatter_class=Manual,
        epilog=f"{EXAMPLES}\n\n{EXIT}",
        allow_abbrev=False,
    )
    train.set_defaults(parser=train)
    networks = train.add_subparsers(
        title="networks", metavar="NETWORK", dest="network", required=True, parser_class=NetworkParser
    )
    for name, (_, _, what) in NETWORKS.items():
        parser = command(networks, name, run_train, what, f"Train {what}. {DATA}")
        parser.network = name
    parser = command(networks, "text2audio", run_text2audio, TEXT2AUDIO, TEXT2AUDIO_ABOUT, TEXT2AUDIO_EXAMPLES)
    parser.add_argument("-c", "--config", metavar="FILE", help="the YAML file (default: the numbers of what ships)")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="of the run (default: as the YAML file says)")
    parser.add_argument("--device", metavar="NAME", help="where to compute: cpu, cuda or mps (default: cpu)")


def add_options(parser: argparse.ArgumentParser, network: str) -> None:
    """The options of one network's command. Those that a recipe decides have no default, so that it shows who gave
    them."""
    from ..training.recipes import RECIPES

    task, left_out = task_of(network), argparse.SUPPRESS
    usual = task.plan(1000)
    parser.add_argument("--clean_data_path", metavar="FOLDER", help="clean speech, or a folder of VoiceBank+DEMAND")
    if task.uses_noise:
        noisy = "noisy recordings of it, under the same names"
        parser.add_argument("--noisy_data_path", metavar="FOLDER", help=noisy)
    parser.add_argument("--manifest", metavar="FILE", help="a manifest.tsv instead of folders")
    if task.uses_rooms:
        rooms = "measured room responses, in place of those of a manifest; half of the rooms are then measured"
        parser.add_argument("--rooms", metavar="FOLDER", help=rooms)
    sizes = f"which sizes to start from, see `wavelldm info` (default: {task.preset})"
    parser.add_argument("--preset", default=left_out, metavar="NAME", help=sizes)
    changes = "change single sizes, such as " + " or ".join(examples_of(task))
    parser.add_argument("--set", nargs="+", action="extend", default=left_out, metavar="KEY=VALUE", help=changes)
    recipes = f"train as weights that ship were trained: {', '.join(RECIPES[network])}"
    parser.add_argument("--recipe", choices=list(RECIPES[network]), metavar="NAME", help=recipes)
    for field in fields(task.Options):
        add_field(parser, field)
    rate = f"the highest learning rate (default: {usual.lr:g})"
    parser.add_argument("--lr", type=number(above=0), default=left_out, metavar="RATE", help=rate)
    falls = "let it rise and fall with the steps; otherwise it stays after the warm-up (default: it falls)"
    parser.add_argument("--use_scheduler", action=argparse.BooleanOptionalAction, default=left_out, help=falls)
    length = parser.add_mutually_exclusive_group()
    epochs = "how often to hear everything (default: 100)"
    length.add_argument("--epochs", type=number(above=0), default=left_out, metavar="N", help=epochs)
    length.add_argument("--steps", type=whole(1), default=left_out, metavar="N", help="or how many steps")
    average = f"how slowly the averaged weights follow; 0: no average (default: {usual.ema:g})"
    parser.add_argument("--ema", type=number(0, 0.999999), default=left_out, metavar="SHARE", help=average)
    parser.add_argument("--seed", type=SEED, default=left_out, metavar="N", help="same seed, same run (default: 0)")
    device = "where to compute: cpu, cuda or mps (default: cuda if there is one, else cpu)"
    parser.add_argument("--device", metavar="NAME", help=device)
    parser.add_argument("-o", "--output", metavar="FOLDER", help=f"of the run (default: runs/{network})")


def examples_of(task: type) -> list[str]:
    """Two sizes of a network's config, as one would set them."""
    config = task.Network.Config
    numbers = [f for f in fields(config) if isinstance(f.default, int) and not isinstance(f.default, bool)]
    return [f"{f.name}={f.default}" for f in numbers[-2:]]


def add_field(parser: argparse.ArgumentParser, field: Field) -> None:
    """A field of a task's options as an option of the command line."""
    name, facts, common = f"--{field.name}", field.metadata, {"default": argparse.SUPPRESS}
    if isinstance(field.default, bool):
        action = argparse.BooleanOptionalAction if field.default else "store_true"
        default = " (default)" if field.default else ""
        parser.add_argument(name, action=action, help=facts["help"] + default, **common)
        return
    kinds = {int: whole(facts["least"] or 0), float: number(facts["least"], above=facts["above"]), str: str}
    metavar = facts["metavar"] or "N"
    default = "" if field.default is None else f" (default: {field.default})"
    nargs = len(metavar) if isinstance(metavar, tuple) else None
    parser.add_argument(
        name, type=kinds[facts["kind"]], nargs=nargs, metavar=metavar, help=facts["help"] + default, **common
    )


def run_train(args: argparse.Namespace) -> None:
    from ..data import corpora
    from ..training import parallel

    with parallel.joined(args.device) as device:
        noisy, rooms = getattr(args, "noisy_data_path", None), getattr(args, "rooms", None)
        corpus = parallel.in_turn(lambda: corpora.gather(args.clean_data_path, noisy, args.manifest))
        if rooms is not None:
            if corpus.recorded:
                raise WavelldmError("recorded pairs have the rooms they have; leave --rooms out")
            corpus = replace(corpus, rooms=corpora.folder(rooms))
        train = by_recipe if args.recipe else by_options
        result, folder = train(args, corpus, device)
        first = parallel.rank() == 0
    state = "stopped; the same command goes on" if result["stopped"] else "done"
    best = "not validated yet" if result["best"] is None else f"best score {result['best']:.4f}"
    if first:
        show(args, result, f"{state}: step {result['step']} of {result['steps']}, {best}, in {folder}")


def run_text2audio(args: argparse.Namespace) -> None:
    from ..training import text_recipe
    from ..weights import check_device

    recipe = text_recipe.read(args.config) if args.config else text_recipe.TextRecipe()
    result = text_recipe.follow(recipe, args.output, check_device(args.device or "cpu"))
    place, best = Path(args.output or recipe.output), result["best"]
    state = "stopped; the same command goes on" if result["stopped"] else "done"
    score = "not validated yet" if best is None else f"best score {best:.4f}"
    show(args, result, f"{state}: step {result['step']} of {result['steps']}, {score}, in {place}")


def by_options(args: argparse.Namespace, corpus: "Material", device: "torch.device") -> tuple[dict, Path]:
    """One run, as the options say."""
    from ..training import loop, parallel, presets, recipes

    task_class, given = task_of(args.network), vars(args)
    sizes = presets.preset(given.get("preset", task_class.preset))
    options = task_class.Options(**{f.name: given[f.name] for f in fields(task_class.Options) if f.name in given})
    if options.batch_size % (parallel.world() * options.accumulate):
        turns = f" in {options.accumulate} turns" if options.accumulate > 1 else ""
        raise WavelldmError(f"{parallel.world()} processes{turns} cannot share batches of {options.batch_size} evenly")
    task = task_class.create(sizes, given.get("set", []), options, device, given.get("seed", 0))
    if options.start is not None:
        task.start_from(options.start)
    task.read(corpus)
    steps = given["steps"] if "steps" in given else task.steps_of(given.get("epochs", 100.0), corpus)
    changes = {name: given[name] for name in ("lr", "ema") if name in given}
    if not given.get("use_scheduler", True):
        changes |= {"final": 1.0, "rise": 0.0}
    plan, folder = task.plan(steps, **changes), Path(args.output or f"runs/{args.network}")
    result = loop.fit(task, plan, folder)
    loop.write_weights(task, plan, folder, recipes.weights_name(args.network, sizes.name))
    return result, folder


def by_recipe(args: argparse.Namespace, corpus: "Material", device: "torch.device") -> tuple[dict, Path]:
    """The runs of a recipe, which decides all numbers."""
    from ..training import recipes

    names, free = [f.name for f in fields(task_of(args.network).Options)], OPEN["all"] + OPEN.get(args.network, ())
    decided = [name for name in (*PLANNED, *names) if name in vars(args) and name not in free]
    if decided or getattr(args, "rooms", None):
        raise WavelldmError(
            f"the recipe decides --{(decided or ['rooms'])[0]}; leave it out, or train without --recipe"
        )
    options = {name: vars(args)[name] for name in free if name in vars(args)}
    folder = Path(args.output or f"runs/{args.network}-{args.recipe}")
    return recipes.follow(args.network, args.recipe, corpus, folder, device, **options), folder
