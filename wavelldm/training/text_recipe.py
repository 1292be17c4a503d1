"""One YAML file describes a whole text-to-audio system: its data, its networks and how long each is trained."""

import typing
from dataclasses import dataclass, field, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import scenes
from ..errors import WavelldmError
from ..text import bpe
from ..text.conditioned import TextDiffusionConfig
from ..text.contrastive import PairConfig, TextAudioPair
from ..text.encoder import TextConfig, words_of
from ..text.htsat import HTSATConfig
from ..text.latent import SoundVAE, SoundVAEConfig
from ..weights import load
from . import loop
from .captioned import PAIRS, Captioned, folder, joined, labelled, synthesised
from .contrastive import PairOptions, PairTask
from .sound_latent import SoundVAEOptions, SoundVAETask
from .text2audio import Frozen, TextDiffusionOptions, TextDiffusionTask, latents_of

CAPTIONS = 8000  # that the byte-pair encoding is learnt on


@dataclass(frozen=True)
class Data:
    scenes: int = 16_000
    valid: int = 240
    pairs: int = 12_000  # more scenes, of two events each, for the diffusion alone
    manifest: str = ""  # recordings with labels, beside the scenes
    folder: str = ""  # instead of them


@dataclass(frozen=True)
class TextSizes:
    width: int = 96
    layers: int = 3
    heads: int = 4
    context: int = 77


@dataclass(frozen=True)
class Stage:
    """How long and how fast one network is trained."""

    steps: int = 1500
    lr: float = 1e-3
    batch_size: int = 48


@dataclass(frozen=True)
class Stages:
    pair: Stage = Stage(1600, 1e-3, 64)
    vae: Stage = Stage(11_000, 2e-3, 16)
    decoder: Stage = Stage(500, 5e-4, 16)  # of the VAE, once its encoder is fixed
    diffusion: Stage = Stage(30_000, 1.5e-3, 32)


@dataclass(frozen=True)
class TextRecipe:
    """What the YAML file holds."""

    seed: int = 0
    output: str = "runs/text2audio"
    name: str = "mine"
    data: Data = Data()
    merges: int = 400
    text: TextSizes = TextSizes()
    audio: HTSATConfig = HTSATConfig()
    joint: int = 128
    vae: SoundVAEConfig = SoundVAEConfig()
    diffusion: TextDiffusionConfig = TextDiffusionConfig()
    train: Stages = field(default_factory=Stages)


def read(path: str | Path) -> TextRecipe:
    """The recipe in a YAML file; what is wrong in it is named, with its place."""
    try:
        import yaml
    except ModuleNotFoundError:
        raise WavelldmError("YAML files are read by a package; install it with: pip install pyyaml") from None
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WavelldmError(f"{path} cannot be read ({type(error).__name__}); check the path") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "somewhere"
        lines = text.splitlines()
        tab = mark is not None and mark.line < len(lines) and "\t" in lines[mark.line]
        why = "a tab, where YAML wants blanks" if tab else getattr(error, "problem", None) or "no valid YAML"
        raise WavelldmError(f"{path}, {where}: {why}; correct that line") from None
    return checked(TextRecipe(), values or {}, "", path)


def checked(base: Any, values: Any, place: str, path: str | Path) -> Any:
    """`base`, a config, with values from YAML; keys must exist and values be of the right kind."""
    if not isinstance(values, dict):
        raise WavelldmError(f"{path}: {place or 'the file'} holds settings 'key: value', not {values!r}; see configs/")
    known = typing.get_type_hints(type(base))
    changes = {}
    for key, value in values.items():
        name = f"{place}.{key}" if place else str(key)
        if key not in known:
            near = get_close_matches(str(key), known, 1, 0.4)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
            raise WavelldmError(f"{path}: there is no setting '{name}'; {hint}")
        old = getattr(base, key)
        changes[key] = checked(old, value, name, path) if is_dataclass(old) else fitting(old, value, name, path)
    return replace(base, **changes)


def fitting(old: Any, value: Any, name: str, path: str | Path) -> Any:
    """`value` if it is of the kind that `old` is."""
    kinds = {int: "a whole number", float: "a number", str: "a text", tuple: "a list of whole numbers"}
    if isinstance(old, tuple) and isinstance(value, list) and all(type(v) is int for v in value):
        return tuple(value)
    if type(old) is float and type(value) in (int, float):
        return float(value)
    if type(value) is not type(old):
        raise WavelldmError(f"{path}: {name} is {kinds.get(type(old), type(old).__name__)}, not {value!r}; change it")
    if type(value) in (int, float) and value < 0 or name.endswith(("steps", "lr", "batch_size")) and value <= 0:
        raise WavelldmError(f"{path}: {name} is greater than 0, not {value!r}; change it")
    return value


def captions_of(data: Data, sounds: Captioned, seed: int) -> list[str]:
    """What the byte-pair encoding is learnt on."""
    lists = [about for rows in sounds.about.values() for about in rows if not isinstance(about, scenes.Scene)]
    generators = [np.random.default_rng([seed + 1, i, 9]) for i in range(0 if data.folder else CAPTIONS)]
    return [text for texts in lists for text in texts] + [scenes.caption(scenes.draw(g), g) for g in generators]


def sounds_of(data: Data, seed: int) -> tuple[Captioned, Captioned]:
    """To train on, and to validate on."""
    if data.folder:
        return halves(folder(data.folder))
    train, valid = synthesised(data.scenes, seed + 1), synthesised(data.valid, seed + 2)
    return (joined(train, labelled(data.manifest)) if data.manifest else train), valid


def with_pairs(sounds: Captioned, data: Data, seed: int) -> Captioned:
    """The same sounds, and scenes of two events beside them: what is hardest to make from words."""
    if data.folder or not data.pairs:
        return sounds
    return joined(sounds, synthesised(data.pairs, seed + 3, relations=PAIRS))


def halves(sounds: Captioned) -> tuple[Captioned, Captioned]:
    """Every tenth sound is held out."""
    train, valid = Captioned(), Captioned()
    for frames, mels in sounds.mels.items():
        held = torch.arange(len(mels)) % 10 == 0
        for part, which in ((train, ~held), (valid, held)):
            if which.any():
                part.mels[frames] = mels[which]
                part.about[frames] = [a for a, w in zip(sounds.about[frames], which.tolist()) if w]
    if not train.mels or not valid.mels:
        raise WavelldmError("there are too few sounds to hold one in ten out; give 20 or more")
    return train, valid


def follow(recipe: TextRecipe, output: str | Path | None = None, device: torch.device | str = "cpu") -> dict:
    """Train the three networks, or go on with them; the weights lie in the folder at the end."""
    r, place = recipe, Path(output or recipe.output)
    train, valid = sounds_of(r.data, r.seed)

    def trained(task: loop.Task, stage: Stage, part: str) -> tuple[dict, Path]:
        plan = task.plan(stage.steps, lr=stage.lr, warmup=min(100, stage.steps // 10), ema=0.998, valid_every=200)
        result = loop.fit(task, plan, place / part)
        loop.write_weights(task, plan, place / part, f"{r.name}-{part}")
        return result, place / part / f"{r.name}-{part}"

    captions = captions_of(r.data, train, r.seed)
    merges = bpe.learn(captions, r.merges).text
    words = " ".join(sorted({word for caption in captions for word in words_of(caption)}))
    text = TextConfig(merges, words, r.text.width, r.text.layers, r.text.heads, r.text.context)
    stages = r.train
    task = PairTask(PairConfig(text, r.audio, r.joint), PairOptions(stages.pair.batch_size), device, r.seed)
    result, pair_path = trained(task.read_captioned(train, valid), stages.pair, "pair")
    if result["stopped"]:
        return result
    task = SoundVAETask(r.vae, SoundVAEOptions(stages.vae.batch_size), device, r.seed)
    result, vae_path = trained(task.read_captioned(train, valid), stages.vae, "encoder")
    if result["stopped"]:
        return result
    task = SoundVAETask(r.vae, SoundVAEOptions(stages.decoder.batch_size, frozen=True), device, r.seed)
    task.start_from(str(vae_path))
    result, vae_path = trained(task.read_captioned(train, valid), stages.decoder, "vae")
    if result["stopped"]:
        return result
    pair, vae = load(pair_path, TextAudioPair, device), load(vae_path, SoundVAE, device)
    sizes = replace(r.diffusion, size=r.vae.size, text=r.text.width, joint=r.joint)
    options = TextDiffusionOptions(stages.diffusion.batch_size)
    task = TextDiffusionTask(sizes, Frozen(pair), options, device, r.seed)
    task.needs = {"pair": pair, "vae": vae}
    task.read_latents(latents_of(vae, with_pairs(train, r.data, r.seed)), latents_of(vae, valid))
    return trained(task, stages.diffusion, "diffusion")[0]
