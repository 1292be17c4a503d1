"""Text to audio: does one hear what the text says? Measured on held-out captions by a classifier that took no part,
and by plain signal processing.

    python benchmarks/text2audio.py [--model WEIGHTS] [--count 2] [--curves] [--lengths]
    python benchmarks/text2audio.py --conditioners 800 [--seeds 2]

`--count`: single events of each kind; 17 times as many pairs of each relation. `--conditioners`:
trains the diffusion with three conditioners for so many steps each and compares their losses, and nothing else.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from report import line, made_by, write_section
from scipy.linalg import sqrtm
from torch import Tensor, nn
from tqdm import tqdm

from wavelldm.audio.mel import LogMel
from wavelldm.data import scenes
from wavelldm.data.scenes import KINDS, NAMES, Scene
from wavelldm.paths import data_home
from wavelldm.text.contrastive import TextAudioPair
from wavelldm.text.text2audio import DEFAULT, SoundMaker, load_maker
from wavelldm.training.captioned import MEL, RECIPE, Captioned, synthesised
from wavelldm.training.contrastive import kinds_of

HERE = Path(__file__).parent
SECONDS = 4.0
JUDGE_SCENES, JUDGE_SEED, JUDGE_STEPS = 5000, 50, 3000
JUDGE_RELATIONS = (None, "with", "then")  # of its scenes, in turn: pairs are hardest to judge
GUIDANCES = (1.0, 2.0, 3.5, 6.0)
STEPS = (5, 10, 25, 50)
BATCH = 24


class Judge(nn.Module):
    """A small convolutional classifier of log-mels (B, 64, F): which kinds of events are in it, and 96 features."""

    def __init__(self):
        super().__init__()
        layers, width = [], 1
        for wider, stride in ((16, 2), (32, 2), (64, (2, 2)), (96, (2, 1))):
            layers += [nn.Conv2d(width, wider, 3, stride, 1), nn.BatchNorm2d(wider), nn.ReLU()]
            width = wider
        self.body, self.last = nn.Sequential(*layers), nn.Linear(2 * width, len(NAMES))

    def features(self, log_mel: Tensor) -> Tensor:
        x = self.body((log_mel[:, None] + 7) / 3).mean(2)  # (B, C, times)
        return torch.cat([x.mean(-1), x.amax(-1)], 1)

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.last(self.features(log_mel))


def judge() -> Judge:
    """The classifier, trained on scenes of another seed than any network of the model; kept in the data folder."""
    path, net = data_home() / f"text2audio-judge-{JUDGE_SCENES}-{JUDGE_STEPS}-v{RECIPE}.pt", Judge()
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    torch.manual_seed(JUDGE_SEED)
    sounds = synthesised(JUDGE_SCENES, JUDGE_SEED, seconds=(SECONDS,), relations=JUDGE_RELATIONS)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, JUDGE_STEPS)
    batches = sounds.batches(32, JUDGE_SEED)
    for _ in tqdm(range(JUDGE_STEPS), desc="judge"):
        log_mel, _, abouts = next(batches)
        log_mel = log_mel + 0.3 * torch.randn(len(log_mel), 1, 1)
        loss = F.binary_cross_entropy_with_logits(net(log_mel), kinds_of(abouts))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    torch.save(net.state_dict(), path)
    return net.eval()


# --- what is asked for ----------------------------------------------------------------------------------------------


def asked(count: int, seed: int = 60) -> list[tuple[Scene, str]]:
    """Held-out captions: single events of every kind, then pairs that training never met, all in new phrasings."""
    found = []
    for relation, number in (("", count * len(NAMES)), ("then", 17 * count), ("with", 17 * count)):
        for i in range(number):
            generator = np.random.default_rng([seed, len(found)])
            if relation:
                scene = scenes.draw(generator, True, relation)
            else:
                scene = Scene((scenes.draw_event(generator, NAMES[i % len(NAMES)]),))
            found.append((scene, scenes.caption(scene, generator, True)))
    return found


def known(count: int, seed: int = 64) -> list[tuple[Scene, str]]:
    """Pairs that training does meet, in new phrasings: whether pairs fail, or only new ones."""
    found = []
    for relation in ("then", "with"):
        for _ in range(17 * count):
            generator = np.random.default_rng([seed, len(found)])
            scene = scenes.draw(generator, False, relation)
            found.append((scene, scenes.caption(scene, generator, True)))
    return found


# --- what is measured by signal processing --------------------------------------------------------------------------


def spectrum_centre(wav: np.ndarray) -> float:
    """Hz below which half of the power lies."""
    power = np.abs(np.fft.rfft(wav)) ** 2
    return float(np.searchsorted(np.cumsum(power), power.sum() / 2)) * scenes.SR / len(wav)


LIMITS = {"bell": 700.0, "beep": 870.0, "hum": 270.0}  # Hz between low and high


def pitch_right(event: scenes.Event, wav: np.ndarray) -> bool:
    return (spectrum_centre(wav) > LIMITS[event.kind]) == (event.pitch == "high")


def loudness_right(event: scenes.Event, wav: np.ndarray) -> bool:
    level = scenes.loudest(wav)
    return level < -32 if event.level == "quiet" else level > -20.5


def onsets(wav: np.ndarray) -> int:
    """How often the loudness rises by 6 dB within 30 ms, to within 14 dB of the highest; 150 ms apart at least."""
    size = scenes.SR // 100
    level = 10 * np.log10(np.mean(wav[: len(wav) // size * size].reshape(-1, size) ** 2, 1) + 1e-12)
    level = np.convolve(np.pad(level, 1, mode="edge"), np.ones(3) / 3, "valid")
    rise = level[3:] - level[:-3]
    count, last = int(level[0] > level.max() - 14), 0 if level[0] > level.max() - 14 else -99
    for i in np.flatnonzero((rise > 6) & (level[3:] > level.max() - 14)):
        if i - last >= 15:
            count, last = count + 1, i
        elif i - last < 6:
            last = i
    return count


def prototypes() -> Tensor:
    """The mean spectrum of each kind, relative to its level (kinds, 64): what order is told by."""
    log_mel, rows = LogMel(MEL), []
    for kind in NAMES:
        wavs = []
        for i in range(8):
            g = np.random.default_rng([70, i])
            event = scenes.Event(kind, glide=("rising", "falling")[i % 2] if kind == "sweep" else "")
            wavs.append(scenes.render(Scene((event,)), g, 2.0))
        rows.append(shape(log_mel(torch.tensor(np.stack(wavs))[:, None], MEL.sr)).mean(0))
    return torch.stack(rows)


def shape(log_mel: Tensor) -> Tensor:
    """Mean power of each band over time, as logarithm, without the level (B, 64)."""
    mean = (log_mel.exp().square().mean(-1) + 1e-9).log()
    return mean - mean.mean(1, keepdim=True)


def order_right(scene: Scene, log_mel: Tensor, means: Tensor) -> bool:
    """Whether the first half sounds more like the first event, and the second like the second, than the other way."""
    half = log_mel.shape[-1] // 2
    parts = shape(torch.stack([log_mel[:, : half - 15], log_mel[:, -half + 15 :]]))
    a, b = (means[NAMES.index(e.kind)] for e in scene.events)
    far = [[float((part - mean).square().mean()) for mean in (a, b)] for part in parts]
    return far[0][0] + far[1][1] < far[0][1] + far[1][0]


# --- what is measured by networks -----------------------------------------------------------------------------------


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance of two sets of features (arXiv 1706.08500, eq. 6)."""
    a, b = a.double().numpy(), b.double().numpy()
    first, second = np.cov(a.T), np.cov(b.T)
    root = sqrtm(first @ second).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))


@torch.no_grad()
def measure(items: list, wavs: Tensor, net: Judge, pair: TextAudioPair, means: Tensor, real: Tensor | None) -> dict:
    """All figures of sounds wavs (n, N) that were made for items (scene, caption)."""
    log_mel = torch.cat([LogMel(MEL)(w[:, None], MEL.sr) for w in wavs.split(BATCH)])  # (n, 64, F)
    logits, features = net(log_mel), net.features(log_mel)
    rows: dict[str, list[bool]] = {}
    for i, (scene, _) in enumerate(items):
        kinds = {e.kind for e in scene.events}
        best = {NAMES[k] for k in logits[i].topk(len(kinds)).indices.tolist()}
        wav, event = wavs[i].numpy(), scene.events[0]
        name = {"": "single", "then": "both, then", "with": "both, with"}[scene.relation]
        rows.setdefault(name, []).append(best == kinds)
        if scene.relation == "then":
            rows.setdefault("order", []).append(order_right(scene, log_mel[i], means))
        if not scene.relation:
            if event.pitch and not event.far:
                rows.setdefault("pitch", []).append(pitch_right(event, wav))
            if event.level:
                rows.setdefault("loudness", []).append(loudness_right(event, wav))
            if event.count and not event.far:
                rows.setdefault("count", []).append(onsets(wav) == event.count)
    found = {name: float(np.mean(values)) for name, values in rows.items()}
    text = pair.embed_text([caption for _, caption in items])
    sound = torch.cat([pair.embed_sound(w, MEL.sr) for w in wavs.split(BATCH)])
    fit = sound @ text.T
    found["retrieval"] = float(
        (fit.argsort(1, descending=True)[:, :5] == torch.arange(len(fit))[:, None]).any(1).float().mean()
    )
    if real is not None:
        found["frechet"] = frechet(features, real)
    return found | {"features": features}


# --- where sounds come from -----------------------------------------------------------------------------------------


def real_sounds(items: list, seed: int = 61) -> Tensor:
    """The synthesiser's own (n, N)."""
    return torch.tensor(
        np.stack([scenes.render(s, np.random.default_rng([seed, i]), SECONDS) for i, (s, _) in enumerate(items)])
    )


@torch.no_grad()
def made(
    maker: SoundMaker, captions: list[str], guidance: float = 3.5, steps: int = 50, seconds: float = SECONDS
) -> Tensor:
    """The model's (n, N), in batches: every sound of one has its own noise."""
    out = []
    for i in tqdm(range(0, len(captions), BATCH), desc=f"sounds, guidance {guidance:g}, {steps} steps"):
        z = maker.latents(captions[i : i + BATCH], seconds, guidance, steps, seed=i, show=False)
        out.append(maker.sound(z, seconds))
    return torch.cat(out)


@torch.no_grad()
def through_latent(maker: SoundMaker, wavs: Tensor) -> Tensor:
    """Sounds (n, N) encoded, decoded and spoken again: what the latent and Griffin-Lim leave."""
    out = []
    for part in wavs.split(BATCH):
        log_mel = LogMel(MEL)(part[:, None], MEL.sr)[..., :-1]
        out.append(maker.sound(maker.vae.normalise(maker.vae.encode(log_mel)[0]), part.shape[1] / MEL.sr))
    return torch.cat(out)


@torch.no_grad()
def nearest(maker: SoundMaker, captions: list[str], count: int = 3000, seed: int = 1) -> Tensor:
    """The sound of the training scene whose caption is nearest to each caption, made anew (n, N)."""
    known = [scenes.draw(np.random.default_rng([seed, i, 0])) for i in range(count)]
    words = [scenes.caption(s, np.random.default_rng([7, i])) for i, s in enumerate(known)]
    text = torch.cat([maker.pair.embed_text(words[i : i + 256]) for i in range(0, count, 256)])
    best = (maker.pair.embed_text(captions) @ text.T).argmax(1).tolist()
    return torch.tensor(np.stack([scenes.render(known[k], np.random.default_rng([62, k]), SECONDS) for k in best]))


# --- tables ---------------------------------------------------------------------------------------------------------

COLUMNS = ("single", "both, then", "both, with", "order", "pitch", "loudness", "count", "retrieval")


def cells(name: str, found: dict) -> str:
    return line([name, *(f"{100 * found[c]:.0f}" if c in found else "" for c in COLUMNS),
                 f"{found['frechet']:.1f}" if "frechet" in found else ""])  # fmt: skip


def head(first: str) -> list[str]:
    return [line([first, *COLUMNS, "Frechet"]), line(["---"] + ["---:"] * (len(COLUMNS) + 1))]


def seconds_of_command(model: str) -> float:
    """Processor time of `wavelldm generate` in a process of its own, start-up and all."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    with tempfile.TemporaryDirectory() as folder:
        before = spent()
        command = [sys.executable, "-m", "wavelldm", "generate", "a bell, then rain", "-o", f"{folder}/x.wav"]
        subprocess.run([*command, "--model", model], check=True, capture_output=True)
        return spent() - before


def turned_within(items: list) -> list[int]:
    """For each item another one of its relation: what a sound is worth that was made for another caption."""
    order = list(range(len(items)))
    for relation in ("", "then", "with"):
        own = [i for i, (scene, _) in enumerate(items) if scene.relation == relation]
        for i, j in zip(own, own[5:] + own[:5]):
            order[i] = j
    return order


def tables(args: argparse.Namespace) -> str:
    maker, net, means = load_maker(args.model), judge(), prototypes()
    items = asked(args.count)
    captions = [caption for _, caption in items]
    truth = measure(items, real_sounds(items), net, maker.pair, means, None)
    features = truth["features"]
    ours = made(maker, captions)
    sources = {
        "the synthesiser itself": real_sounds(items, 63),
        "its sounds through the latent": through_latent(maker, real_sounds(items)),
        "**the model**": ours,
        "nearest caption of training": nearest(maker, captions),
        "the model, captions exchanged": ours[turned_within(items)],
    }
    rows = head("")
    for name, wavs in sources.items():
        rows.append(cells(name, measure(items, wavs, net, maker.pair, means, features)))
        print(rows[-1], flush=True)
    text = "\n".join(rows)
    pairs = known(args.count)
    features = measure(pairs, real_sounds(pairs), net, maker.pair, means, None)["features"]
    rows = head("pairs that training met")
    for name, wavs in {
        "the synthesiser itself": real_sounds(pairs, 65),
        "**the model**": made(maker, [caption for _, caption in pairs]),
    }.items():
        rows.append(cells(name, measure(pairs, wavs, net, maker.pair, means, features)))
        print(rows[-1], flush=True)
    text += "\n\n" + "\n".join(rows)
    took = seconds_of_command(args.model)
    text += f"\n\nOne sound of {SECONDS:g} s, start-up included: {took:.1f} s of the processor, one thread."
    if args.curves:
        few = items[::3]
        words = [c for _, c in few]
        target = measure(few, real_sounds(few), net, maker.pair, means, None)["features"]
        rows = head("guidance")
        for g in GUIDANCES:
            rows.append(cells(f"{g:g}", measure(few, made(maker, words, g, 25), net, maker.pair, means, target)))
        text += "\n\n### Guidance and steps\n\n" + "\n".join(rows)
        rows = head("steps")
        for steps in STEPS:
            rows.append(cells(f"{steps}", measure(few, made(maker, words, 3.5, steps), net, maker.pair, means, target)))
        text += "\n\n" + "\n".join(rows)
    if args.lengths:
        singles = [item for item in items if not item[0].relation][: len(NAMES)]
        rows = [line(["seconds", "kind recognised, %"]), "| ---: | ---: |"]
        for seconds in (1.0, 4.0, 7.0, 15.0):
            wavs = made(maker, [c for _, c in singles], seconds=seconds)
            log_mel = LogMel(MEL)(wavs[:, None], MEL.sr)
            right = [NAMES[k] == s.events[0].kind for k, (s, _) in zip(net(log_mel).argmax(1).tolist(), singles)]
            rows.append(line([f"{seconds:g}", f"{100 * np.mean(right):.0f}"]))
        text += "\n\n### Length\n\n" + "\n".join(rows)
    return text


# --- the claim: a better conditioner reaches a loss in fewer steps --------------------------------------------------


class BagOfWords(nn.Module):
    """A conditioner from scratch: the mean of a learnt vector for each word, whatever their order."""

    def __init__(self, words: list[str], width: int, joint: int):
        super().__init__()
        self.rows = {word: i + 1 for i, word in enumerate(words)}
        self.table, self.out = nn.Embedding(len(words) + 1, width), nn.Linear(width, joint)

    def tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        from wavelldm.text.encoder import words_of

        found = [[self.rows.get(word, 0) for word in words_of(text)] or [0] for text in texts]
        longest = max(map(len, found))
        real = torch.arange(longest) < torch.tensor([len(row) for row in found])[:, None]
        return torch.tensor([row + [0] * (longest - len(row)) for row in found]), real

    def forward(self, numbers: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = self.table(numbers) * real[..., None]
        mean = rows.sum(1, keepdim=True) / real.sum(1)[:, None, None]  # (B, 1, C)
        return mean, real[:, :1], F.normalize(self.out(mean[:, 0]), dim=-1)


def conditioners(args: argparse.Namespace, folder: Path) -> None:
    """Train three times `seeds` diffusions -> folder/NAME-SEED/log.csv, which `drawn` makes a picture of."""
    from wavelldm.training import loop
    from wavelldm.training.text2audio import Frozen, TextDiffusionOptions, TextDiffusionTask, latents_of

    maker = load_maker(args.model)
    train, valid = (latents_of(maker.vae, synthesised(n, s)) for n, s in ((args.scenes, 1), (240, 2)))
    train, valid = (Captioned({400: x.mels[400]}, {400: x.about[400]}) for x in (train, valid))  # those of 4 s
    config = maker.diffusion.config
    for seed in range(args.seeds):
        for name in ("pretrained", "untrained", "bag of words"):
            torch.manual_seed(100 + seed)
            if name == "bag of words":
                condition = BagOfWords(sorted(maker.pair.text.words), config.text, config.joint)
            elif name == "untrained":
                condition = Frozen(TextAudioPair(maker.pair.config))
            else:
                condition = Frozen(maker.pair)
            task = TextDiffusionTask(config, condition, TextDiffusionOptions(args.batch), seed=seed)
            task.read_latents(train, valid)
            plan = task.plan(
                args.conditioners,
                lr=1.5e-3,
                ema=0.99,
                valid_every=max(1, args.conditioners // 8),
                save_every=200,
                weight_decay=0.0,
            )
            print(name, seed, loop.fit(task, plan, folder / f"{name.replace(' ', '-')}-{seed}"), flush=True)


def drawn(folder: Path, picture: Path) -> str:
    """The picture of all curves, and a table: loss at the end, and steps to the losses that the others end at."""
    import csv

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    runs: dict[str, list] = {}
    for path in sorted(folder.glob("*/log.csv")):
        name = path.parent.name.rsplit("-", 1)[0].replace("-", " ")
        with open(path) as file:
            runs.setdefault(name, []).append([(int(r["step"]), float(r["score"])) for r in csv.DictReader(file)])
    figure, axis = plt.subplots(figsize=(7, 4))
    for (name, curves), colour in zip(runs.items(), ("#c44e52", "#4c72b0", "#999999")):
        for i, curve in enumerate(curves):
            axis.plot(*zip(*curve), color=colour, label=name if i == 0 else None)
    axis.set(xlabel="steps of the diffusion", ylabel="held-out loss (v)", yscale="log")
    axis.legend(), axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    rows = [line(["conditioner", "loss at the end", *(f"steps to the end of: {name}" for name in runs)])]
    rows.append("| --- | ---: |" + " ---: |" * len(runs))
    for name, curves in runs.items():
        ends = ", ".join(f"{curve[-1][1]:.4f}" for curve in curves)
        reached = [", ".join(steps_to(c, g[-1][1]) for c, g in zip(curves, goals)) for goals in runs.values()]
        rows.append(line([name, ends, *reached]))
    return "\n".join(rows)


def steps_to(curve: list, goal: float) -> str:
    """After how many steps a curve of (step, loss) is down at `goal`, between two validations along a straight line."""
    for (before, high), (after, low) in zip(curve, curve[1:]):
        if low <= goal:
            return f"{before + (after - before) * (high - goal) / (high - low):.0f}"
    return "not reached"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT, help="the diffusion's weights (default: what ships)")
    parser.add_argument("--count", type=int, default=2, help="single events of each kind (default: 2)")
    parser.add_argument("--curves", action="store_true", help="guidance and steps too")
    parser.add_argument("--lengths", action="store_true", help="lengths from 1 to 15 s too")
    parser.add_argument("--conditioners", type=int, metavar="STEPS", help="compare conditioners, and nothing else")
    parser.add_argument("--seeds", type=int, default=2, help="of each conditioner (default: 2)")
    parser.add_argument("--batch", type=int, default=24, help="sounds in a step of theirs (default: 24)")
    parser.add_argument("--scenes", type=int, default=9000, help="to train the conditioners' diffusions on")
    parser.add_argument("--runs", default="runs/conditioners", help="where those runs go")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.conditioners:
        conditioners(args, Path(args.runs))
        given = f"--conditioners {args.conditioners} --batch {args.batch} --scenes {args.scenes} --seeds {args.seeds}"
        text = f"""## Text to audio: conditioners

Three conditioners, {args.seeds} seeds each, {args.conditioners} steps of {args.batch} sounds of 4 s, the same
batches: the text encoder that learnt beside the audio encoder, frozen; the same encoder untrained, frozen; a bag of
words that learns along. Steps: until the loss at which another one of the same seed ends.

{drawn(Path(args.runs), HERE / "text2audio.png")}

![held-out loss over steps](text2audio.png)

{made_by("text2audio.py", None, given)}."""
        print(text)
        write_section("text2audio-conditioners", text)
        return
    given = [f"--count {args.count}", *(f"--{name}" for name in ("curves", "lengths") if getattr(args, name))]
    text = f"""## Text to audio

Held-out captions: {args.count} single events of each of {len(KINDS)} kinds, {17 * args.count} pairs one after the other
and {17 * args.count} together that training never met, all in phrasings that it never met. Percent right. Single and
both: by a classifier of our own, trained on scenes of another seed. Order, pitch, loudness and count: by signal
processing. Retrieval: by the model's own encoders, whether the caption is among the five nearest of all. Frechet:
distance to real scenes of the same captions, in the classifier's features.

{tables(args)}

{made_by("text2audio.py", None, *given)}."""
    print(text)
    write_section("text2audio", text)


if __name__ == "__main__":
    main()
