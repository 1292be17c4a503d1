import pytest
import torch
from signals import speechlike

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.cli import main
from wavelldm.codec.model import Codec
from wavelldm.config import override
from wavelldm.data.clips import Clips
from wavelldm.data.corpora import Corpus, Item
from wavelldm.errors import WavelldmError
from wavelldm.mel.vae import MelVAE
from wavelldm.training import ladder, loop, task_of
from wavelldm.training.ladder import AutoencoderTask, RefinementTask, VAETask, VocoderTask
from wavelldm.training.presets import preset

SR = 16_000


def batch(n=2, seconds=0.5):
    return torch.stack([torch.from_numpy(speechlike(seconds, seed=s)).float()[None] for s in range(n)]), torch.arange(n)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder, items = tmp_path_factory.mktemp("speech"), []
    for i in range(3):
        path = folder / f"{i}.wav"
        files.save(path, torch.from_numpy(speechlike(1.0, seed=i))[None].float(), SR)
        items.append(Item(path, label=f"f{i}"))
    return Corpus(items[:2], None, items[2:], None, False)


def improve(task, steps=25, lr=1e-2):
    """Score on its one batch before and after a few steps."""
    model = task.networks["model"]
    before = task.validate(model)["score"]
    optimiser = torch.optim.Adam(model.parameters(), lr)
    for _ in range(steps):
        torch.manual_seed(0)
        ((_, loss, _),) = task.losses(task.valid[0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return before, task.validate(model)["score"]


def test_the_vae_and_its_refinement_learn_their_batch():
    data = [batch(2, 0.3)]
    task = VAETask(preset("tiny").vae).with_data(None, data)
    before, after = improve(task, 15)
    assert after < 0.8 * before
    torch.manual_seed(0)
    repair = RefinementTask(preset("tiny").refinement, task.networks["model"]).with_data(None, data)
    before, after = improve(repair, 15)
    assert after < 0.97 * before
    assert not any(p.requires_grad for p in repair.vae.parameters())


@pytest.mark.parametrize("kind,lr", [(VocoderTask, 1e-2), (AutoencoderTask, 4e-3)])
def test_the_others_learn_theirs(kind, lr):
    task = kind(getattr(preset("tiny"), kind.network)).with_data(None, [batch()])
    before, after = improve(task, 25, lr)
    assert after < 0.99 * before


def trained(kind, corpus, folder, **options):
    task = kind.create(preset("tiny"), [], kind.Options(batch_size=2, seconds=0.5, **options))
    task.read(corpus)
    plan = loop.Plan(steps=2, valid_every=2, warmup=1)
    result = loop.fit(task, plan, folder, progress=False)
    return result, loop.write_weights(task, plan, folder, f"tiny-{kind.network}")


def test_a_run_trains_stops_and_loads(corpus, tmp_path):
    result, path = trained(VAETask, corpus, tmp_path / "vae")
    assert result["step"] == 2 and result["best"] is not None
    assert isinstance(weights.load(path, MelVAE), MelVAE)
    done, repaired = trained(RefinementTask, corpus, tmp_path / "fix", vae=str(path))
    facts = weights.about(repaired)
    assert done["step"] == 2 and facts["kind"] == "Refinement" and weights.needed(repaired, "vae") == path
    with pytest.raises(WavelldmError, match="--vae"):
        trained(RefinementTask, corpus, tmp_path / "x")
    with pytest.raises(WavelldmError, match="leave --codec out"):
        trained(VAETask, corpus, tmp_path / "y", codec="voice16k")


def test_words_are_told_and_sometimes_withheld(corpus):
    task = VAETask(override(preset("tiny").vae, ["words=64"])).with_data(None, [(batch(1)[0], torch.tensor([0]))])
    task.items(corpus)
    words = task.words
    assert [w.split()[-1] for w in words[0]] == ["f", "f"]
    told = []
    task.networks["model"].decode = lambda z, frames=None, texts=None: (
        told.append(texts) or torch.zeros(len(z), 100, frames, requires_grad=True)
    )
    wav = batch()[0]
    for _ in range(40):
        next(task.losses((wav, torch.tensor([0, 1]))))
    task.validate(task.networks["model"])
    assert told.pop() == [words[1][0]]
    silent = sum(t == "" for pair in told for t in pair)
    assert 4 < silent < 30 and {t for pair in told for t in pair} == {"", *words[0]}


def test_losses_on_sound_reach_the_mel():
    config = override(preset("tiny").vae, ["stft=1", "features=1"])
    torch.manual_seed(0)
    task = VAETask(config, codec=Codec(preset("tiny").codec))
    ((_, loss, parts),) = task.losses(batch())
    assert {"mel", "kl", "stft", "features"} == set(parts)
    task.networks["model"].zero_grad()
    loss.backward()
    assert task.networks["model"].decoder.last.weight.grad.abs().max() > 0
    wav, net = batch()[0], task.networks["model"]
    mel = net.mel(wav, SR)
    same = ladder.with_phase_of(wav, mel, mel, config.mel)
    assert (same - wav).abs().max() < 1e-3 * wav.abs().max()
    quieter = ladder.with_phase_of(wav, mel - torch.log(torch.tensor(2.0)), mel, config.mel)
    middle = slice(1_000, -1_000)
    assert (quieter - wav / 2)[..., middle].abs().max() < 0.02 * wav.abs().max()


def test_crops_depend_on_seed_and_step_alone(corpus, tmp_path):
    clips = Clips(corpus.speech, SR, tmp_path)
    first = ladder.crops(clips, 0.25, 3, seed=1, workers=1)
    _, (wav, which) = next(first), next(first)
    again, at = next(ladder.crops(clips, 0.25, 3, seed=1, first=1))
    assert torch.equal(wav, again) and torch.equal(which, at) and wav.shape == (3, 1, 4_000)
    assert not torch.equal(wav, next(ladder.crops(clips, 0.25, 3, seed=2, first=1))[0])


def test_command_line(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WAVELLDM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("wavelldm.data.corpora.gather", lambda *_: corpus)
    options = "--preset tiny --steps 1 --batch_size 2 --seconds 0.5".split()
    assert main.main(["train", "autoencoder", *options, "--output", str(tmp_path / "run")]) == 0
    assert "done: step 1 of 1" in capsys.readouterr().out
    assert weights.about(tmp_path / "run" / "tiny-autoencoder.safetensors")["kind"] == "Autoencoder"
    assert task_of("autoencoder") is AutoencoderTask
