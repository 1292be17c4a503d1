"""How a test is made."""

import json
import re

import numpy as np
import pytest
import torch
from signals import speechlike

from wavelldm.app import listen
from wavelldm.app.listen import REFERENCE, build, low_passed, open_test, public
from wavelldm.audio import files
from wavelldm.audio.loudness import loudness
from wavelldm.errors import DataError, WavelldmError

SR = 16_000


def sound_of(test, system):
    name = next(name for name, (of, _) in test.sounds.items() if of == system)
    return files.load(test.folder / "public" / "audio" / f"{name}.wav")


@pytest.mark.parametrize("kind, trials, versions", [("acr", 9, 1), ("mushra", 3, 5), ("ab", 3, 2), ("abx", 3, 2)])
def test_every_kind_has_its_trials_and_the_key_comes_back(make, kind, trials, versions):
    test = make(kind)
    counted = [t for t in test.trials if not t.practice and not t.check]
    assert len(counted) == trials and all(len(t.stimuli) == versions for t in counted)
    assert any(t.practice for t in test.trials)
    assert any(t.check for t in test.trials) == (kind != "mushra")
    again = open_test(test.folder)
    assert again == test and again.trial(counted[0].id) == counted[0]
    assert not make(kind, "other", checks=False).trials[-1].check


def test_what_listeners_can_see_says_nothing_of_systems_clips_or_checks(make):
    test = make("acr", title="</script><b>&")
    seen = (test.folder / "public" / "test.js").read_text()
    names = [path.name for path in (test.folder / "public" / "audio").iterdir()]
    facts = json.loads(seen.split("= ", 1)[1].rstrip(";\n"))
    assert set(facts) == {"id", "kind", "title", "trials"}
    for trial in facts["trials"]:  # random names, and nothing else
        assert set(trial) == {"id", "stimuli", "reference", "practice"} and trial["reference"] is None
        assert all(re.fullmatch("[0-9a-f]{12,20}", name) for name in (trial["id"], *trial["stimuli"]))
    assert all(re.fullmatch(r"[0-9a-f]{20}\.wav", name) for name in names) and len(names) == len(test.sounds)
    assert "</script>" not in seen and facts["title"] == test.title
    assert not list((test.folder / "public").rglob("test.json"))
    assert [t["id"] for t in public(test)["trials"]] == sorted(t.id for t in test.trials)  # not in the key's order


def test_all_sounds_are_equally_loud_and_anchors_are_low_passed(folders, tmp_path, make):
    loud = tmp_path / "loud"
    for path in (folders / "good").iterdir():
        files.save(loud / path.name, files.load(path)[0] * 2, SR)
    test = build(tmp_path / "t", "mushra", [loud, folders / "bad"], folders / "clean", progress=False)
    levels = [loudness(*sound_of(test, system)) for system in ("loud", "bad", REFERENCE)]
    assert max(levels) - min(levels) < 0.1 and max(levels) < listen.TARGET + 0.1
    clean, _ = sound_of(test, REFERENCE)
    for system, edge in listen.ANCHORS.items():
        wav, sr = sound_of(test, system)
        power = torch.fft.rfft(wav[0]).abs().square()
        hz = torch.arange(len(power)) * sr / wav.shape[-1]
        assert power[hz > edge + 600].mean() < 1e-4 * power[hz < edge].mean()
        assert wav.shape == clean.shape and (wav - low_passed(clean, sr, edge)).abs().max() < 1e-3  # gain, no delay


def test_the_low_pass_is_flat_up_to_its_edge():
    wav = torch.randn(1, 48_000, generator=torch.Generator().manual_seed(0))
    ratio = torch.fft.rfft(low_passed(wav, 48_000, 3500)).abs() / torch.fft.rfft(wav).abs()  # a bin is 1 Hz
    assert ratio[0, 300:3400].log10().mul(20).abs().median() < 0.1
    assert 20 * ratio[0, 4000:4200].median().log10() < -25 and 20 * ratio[0, 4500:].median().log10() < -50


def test_other_rates_become_the_highest_and_a_short_choice_of_clips_is_the_same_by_seed(folders, tmp_path):
    high = tmp_path / "high"
    for path in (folders / "good").iterdir():
        files.save(high / path.name, files.resample(files.load(path)[0], SR, 48_000), 48_000)
    tests = [build(tmp_path / f"t{i}", "ab", [high, folders / "bad"], clips=2, seed=s, progress=False)
             for i, s in enumerate((1, 1, 3))]  # fmt: skip
    assert tests[0].sr == 48_000 and sound_of(tests[0], "bad")[1] == 48_000
    clips = [sorted({t.clip for t in test.trials if not t.check}) for test in tests]
    assert clips[0] == clips[1] and len(clips[0]) == 2
    assert not set(tests[0].sounds) & set(tests[1].sounds)  # names of sounds are new each time


@pytest.mark.parametrize(
    "change, said",
    [
        ({"kind": "mushra"}, "needs the reference"),
        ({"kind": "ab", "reference": "clean"}, "has no reference"),
        ({"kind": "ab", "systems": ["good"]}, "name two folders or more"),
        ({"kind": "mos"}, "there is no kind of test"),
        ({"systems": ["good", "good"]}, "two systems would be called 'good'"),
        ({"systems": ["reference=good"]}, "would be called 'reference'"),
        ({"systems": ["\x07=good"]}, "is no name for a system"),
        ({"systems": ["good", "few"]}, "few has no clip c1, c2, which another system has"),
        ({"systems": ["none"]}, "does not exist"),
        ({"systems": ["empty"]}, "holds no sound files"),
        ({"systems": ["silent"]}, "is silent"),
        ({"systems": ["long"]}, "lasts 31.00 s"),
        ({"systems": ["broken"]}, "cannot be read as sound"),
        ({"clips": 4}, "have 3 clips in common, not 4"),
        ({"title": "a\nb"}, "printable"),
        ({"output": "good"}, "exists, and may hold ratings"),
        ({"kind": "mushra", "systems": ["slow"], "reference": "slow"}, "an anchor of 3.5 kHz needs more than 8 kHz"),
    ],
)
def test_what_cannot_become_a_test_is_a_sentence_and_leaves_nothing(folders, tmp_path, monkeypatch, change, said):
    monkeypatch.chdir(tmp_path)
    for name in ("good", "bad", "clean"):
        (tmp_path / name).symlink_to(folders / name)
    (tmp_path / "empty").mkdir()
    files.save("few/c0.wav", torch.from_numpy(speechlike(0.5)).float(), SR)
    files.save("silent/c0.wav", torch.zeros(SR), SR)
    files.save("long/c0.wav", 0.1 * torch.ones(31 * SR), SR)
    files.save("slow/c0.wav", torch.from_numpy(speechlike(0.5)).float()[::2], SR // 2)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/c0.wav").write_bytes(b"no sound")
    before = sorted(tmp_path.iterdir())
    given = {"output": "t", "kind": "acr", "systems": ["good"], "progress": False, **change}
    with pytest.raises(WavelldmError, match=re.escape(said)):
        build(**given)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 1, "trials": [{"id": 3}]}'])
def test_a_damaged_key_and_a_folder_that_is_no_test_are_sentences(make, tmp_path, damage):
    test = make("ab")
    (test.folder / "test.json").write_bytes(damage)
    with pytest.raises(DataError, match="is damaged"):
        open_test(test.folder)
    with pytest.raises(DataError, match="is no listening test"):
        open_test(tmp_path)


def test_an_empty_test_a_test_of_another_version_and_one_without_its_sounds_are_sentences(make):
    test = make("ab")
    whole = json.loads((test.folder / "test.json").read_text())
    (test.folder / "test.json").write_text(json.dumps(whole | {"trials": []}))
    with pytest.raises(DataError, match="holds no trials"):
        open_test(test.folder)
    (test.folder / "test.json").write_text(json.dumps(whole | {"format": 99}))
    with pytest.raises(DataError, match="another version"):
        open_test(test.folder)
    next((test.folder / "public" / "audio").iterdir()).unlink()
    with pytest.raises(DataError, match="lacks audio/"):
        listen.public_files(test)


def test_answers_that_do_not_belong_to_the_test_are_refused(make):
    for kind in ("acr", "mushra", "ab", "abx"):
        test = make(kind, kind)
        trial = next(t for t in test.trials if not t.practice)
        sound, strange = trial.stimuli[0], "0" * 20
        right = {"acr": (sound, 3), "mushra": (sound, 100), "ab": ("prefer", sound), "abx": (f"x:{sound}", sound)}[kind]
        assert test.refuse(trial.id, *right) is None and test.refuse(trial.id, "done", 1) is None
        wrong = {
            "acr": [(sound, 0), (sound, 6), (sound, 3.0), (sound, True), (sound, "3"), (strange, 3)],
            "mushra": [(sound, -1), (sound, 101), (strange, 50), ("done", 2)],
            "ab": [("prefer", strange), ("prefer", 1), (sound, sound), (None, sound)],
            "abx": [(f"x:{strange}", sound), (f"x:{sound}", strange), (sound, sound), (3, sound)],
        }[kind]
        assert all(test.refuse(trial.id, *w) for w in wrong)
        practice = next(t for t in test.trials if t.practice)
        assert test.refuse(practice.id, *right) and test.refuse("none", *right) and test.refuse(["a"], *right)


def test_spoiled_sounds_are_spoiled():
    clean = torch.from_numpy(0.4 * speechlike(1.0)).float()[None]
    bad = listen.spoiled(clean, SR)
    assert torch.equal(bad, listen.spoiled(clean, SR))
    assert np.corrcoef(bad[0].numpy(), clean[0].numpy())[0, 1] < 0.9
