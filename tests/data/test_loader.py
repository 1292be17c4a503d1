"""A step is the same whatever the number of workers or the start; held-out files stay out of training."""

import tarfile
from dataclasses import replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from wavelldm.audio import files
from wavelldm.data import corpora, loader
from wavelldm.data.clips import Clips
from wavelldm.data.degrade import RECIPES, Degradation
from wavelldm.errors import DataError

SR = 16_000


def draw(corpus, tmp_path, steps: int, **options):
    recipe = options.pop("recipe", RECIPES["everything"])
    sources = (items and Clips(items, SR, tmp_path / "cache") for items in corpus)
    found = loader.batches(*sources, recipe, SR, 0.5, 3, **options)
    return list(islice(found, steps))


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_batches_depend_on_seed_and_step_alone(corpus, tmp_path):
    alone = draw(corpus, tmp_path, 5, seed=1)
    assert all(x.shape == (3, 1, SR // 2) and x.dtype == torch.float32 for pair in alone for x in pair)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert same(alone, draw(corpus, tmp_path, 5, seed=1))
    assert torch.equal(before, torch.get_rng_state())  # nobody else's random numbers are used up
    assert same(alone[3:], draw(corpus, tmp_path, 2, seed=1, start=3))
    assert not same(alone, draw(corpus, tmp_path, 5, seed=2))
    assert not torch.equal(alone[0][1], alone[1][1])


def test_varied_speech_is_other_speech(corpus, tmp_path):
    quiet = Degradation(noise=0.0)
    plain, all_varied = (draw(corpus, tmp_path, 3, seed=1, recipe=quiet, varied=share) for share in (0.0, 1.0))
    assert same(plain, draw(corpus, tmp_path, 3, seed=1, recipe=quiet))
    assert same(all_varied[1:], draw(corpus, tmp_path, 2, seed=1, recipe=quiet, varied=1.0, start=1, workers=1))
    for (noisy, clean), (_, usual) in zip(all_varied, plain):
        assert torch.equal(noisy, clean) and clean.shape == usual.shape and clean.isfinite().all()
        assert not any(torch.allclose(a, b, atol=1e-3) for a, b in zip(clean, usual))


def test_recorded_pairs_are_varied_alike(tmp_path):
    wav = 0.1 * torch.randn(1, 2 * SR, generator=torch.Generator().manual_seed(0))
    names = [tmp_path / "clean.wav", tmp_path / "noisy.wav"]
    for name, gain in zip(names, (1.0, 0.5)):
        files.save(name, gain * wav, SR)
    item = corpora.Item(names[0], noisy=names[1], split="train")
    pair = loader.Crops(Clips([item], SR, tmp_path / "cache"), None, 0.5, 0, varied=1.0)[0]
    assert torch.allclose(pair[1], -0.5 * pair[0], atol=1e-4), "noise is what the noisy one has more"


def test_batches_do_not_depend_on_the_number_of_workers(corpus, tmp_path):
    alone = draw(corpus, tmp_path, 5, seed=1)
    for workers in (1, 2):
        assert same(alone, draw(corpus, tmp_path, 5, seed=1, workers=workers))
    assert same(alone[2:], draw(corpus, tmp_path, 3, seed=1, workers=2, start=2))


def sharded(items, folder, kind: str) -> list:
    """Two shards with the sounds of these files, in their order."""
    folder.mkdir()
    for i, part in enumerate((items[:2], items[2:])):
        names = [f"{item.label}/{item.path.name}" for item in part]
        if kind == ".tar":
            with tarfile.open(folder / f"{i}.tar", "w") as tar:
                for item, name in zip(part, names):
                    tar.add(item.path, name)
        else:
            rows = [{"bytes": item.path.read_bytes(), "path": name} for item, name in zip(part, names)]
            parquet.write_table(pa.table({"audio": rows}), folder / f"{i}.parquet", row_group_size=3)
    return corpora.folder(folder)


@pytest.mark.parametrize("kind", [".tar", ".parquet"])
def test_shards_give_the_batches_that_files_give(corpus, tmp_path, kind):
    speech, noise = corpus
    shards = sharded(speech, tmp_path / "shards", kind)
    assert [(item.label, item.member) for item in shards] == [
        (item.label, f"{item.label}/{item.path.name}") for item in speech
    ]
    files_of_shards = [corpora.folder(path) for path in sorted((tmp_path / "shards").iterdir())]
    assert sum(files_of_shards, []) == shards, "one shard may be named by itself"
    assert same(draw(corpus, tmp_path, 3, seed=1), draw((shards, noise), tmp_path, 3, seed=1))
    one, two = (Clips(part, SR, tmp_path / "cache") for part in (shards[:3], shards[3:]))
    assert one.path != two.path, "sounds of one shard do not share what is decoded"


@pytest.mark.parametrize("kind", [".tar", ".parquet"])
def test_two_processes_read_disjoint_shares_that_are_the_whole(corpus, tmp_path, kind, monkeypatch):
    speech, noise = corpus
    sources, read = (sharded(speech, tmp_path / "shards", kind), noise), []
    item = loader.Crops.__getitem__
    monkeypatch.setattr(loader.Crops, "__getitem__", lambda crops, k: read.append(k) or item(crops, k))

    def of(share):
        read.clear()
        found = loader.batches(
            *(Clips(x, SR, tmp_path / "cache") for x in sources), RECIPES["everything"], SR, 0.5, 4, seed=1, share=share
        )
        return list(islice(found, 3)), set(read)

    (whole, everything), (first, its), (second, theirs) = map(of, ((0, 1), (0, 2), (1, 2)))
    assert everything == set(range(12)) == its | theirs and not its & theirs
    for together, a, b in zip(whole, first, second):
        for x, y, z in zip(together, a, b):
            assert torch.allclose(x[0::2], y, atol=1e-5) and torch.allclose(x[1::2], z, atol=1e-5)


def test_recorded_pairs_stay_pairs(voicebank, tmp_path):
    items = corpora.voicebank(voicebank)
    clips = Clips(items, SR, tmp_path / "cache")
    (noisy, clean), *_ = islice(loader.batches(clips, None, RECIPES["recorded"], SR, 0.2, 8), 1)
    for a, b in zip(noisy[:, 0].numpy(), clean[:, 0].numpy(), strict=True):
        places = [
            (rows, at)
            for rows in map(clips.rows, range(len(clips)))
            for at in np.flatnonzero(rows[0, : rows.shape[1] - len(b) + 1] == b[0] * 32768)
            if np.array_equal(rows[0, at : at + len(b)], b * 32768)
        ]
        (rows, at), *_ = places  # the clean crop lies in a file, and the noisy one at the same place of its partner
        assert np.array_equal(rows[1, at : at + len(a)], a * 32768)


def test_clean_speech_alone_trains_a_codec(corpus, tmp_path):
    noisy, clean = draw((corpus[0], None), tmp_path, 1, recipe=Degradation(noise=0))[0]
    assert torch.equal(noisy, clean) and clean.abs().max() > 0
    with pytest.raises(DataError, match="noise"):
        draw((corpus[0], None), tmp_path, 1, recipe=Degradation())


def test_held_out_files_are_not_trained_on_nor_the_other_way_round(voicebank, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("WAVELLDM_DATA", str(tmp_path))
    for split in ("valid", "test"):
        with pytest.raises(DataError, match="held out"):
            draw((corpora.voicebank(voicebank, split), None), tmp_path, 1)
    with pytest.raises(DataError, match="is for training"):
        loader.valid_pairs(*corpus, RECIPES["noise"], SR, 0.5, 4)


def test_validation_pairs_are_the_same_for_every_batch_size(corpus, tmp_path, monkeypatch):
    speech = [replace(item, split="valid") for item in corpus[0]]
    monkeypatch.setenv("WAVELLDM_DATA", str(tmp_path))

    def made(batch, **options):
        pairs = loader.valid_pairs(speech, corpus[1], RECIPES["noise"], SR, 0.5, batch, **options)
        return pairs, [torch.cat(part) for part in zip(*pairs, strict=True)]

    pairs, whole = made(4)
    assert [len(noisy) for noisy, _ in pairs] == [4, 2] and whole[0].shape == (6, 1, SR // 2)
    assert all(torch.equal(a, b) for a, b in zip(whole, made(1)[1], strict=True))
    assert not torch.equal(whole[0], made(4, seed=1)[1][0])
    first = files.load(speech[5].path)[0][0]  # crop 5 is cut from file 5
    assert (first.unfold(0, 16, 1) == whole[1][5, 0, :16]).all(-1).any()
    assert sum(len(noisy) for noisy, _ in made(4, count=9)[0]) == 9


@pytest.mark.parametrize("name", ["everything", "wavelldm"])
def test_a_share_of_a_batch_is_what_it_is_in_the_whole(corpus, tmp_path, name):
    """To the bit where a step works on each item alone; rooms and bands go through an FFT of several items at once."""
    measured = torch.randn(5, 400, generator=torch.Generator().manual_seed(3)) * torch.exp(-torch.arange(400) / 60)
    options = {"recipe": replace(RECIPES[name], reverb=0.5, faint=0.3, narrow=0.3, clip=0.4), "rirs": measured}
    whole = draw(corpus, tmp_path, 8, **options)
    for i in range(3):
        ours = draw(corpus, tmp_path, 8, share=(i, 3), **options)
        for batch, part in zip(whole, ours):
            for x, y in zip(batch, part):
                assert y.shape == (1, 1, SR // 2) and torch.allclose(x[i::3], y, atol=1e-6)
    with pytest.raises(DataError, match="cannot be read in 2 equal shares"):
        draw(corpus, tmp_path, 1, share=(0, 2))
