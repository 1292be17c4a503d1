import json
import tarfile

import numpy as np
import pytest
import soundfile as sf

from wavelldm.batch.prepare import FRAME, SR, Wanted, prepare, stretches
from wavelldm.data import voices
from wavelldm.data.clips import Clips
from wavelldm.data.corpora import folder
from wavelldm.errors import WavelldmError

STEP = FRAME / SR


def test_stretches_bridge_short_pauses_cut_long_speech_and_leave_out_short_speech():
    def speech(*runs):
        return np.concatenate([np.full(round(seconds / STEP), value) for value, seconds in runs])

    wanted = Wanted(shortest=0.5, longest=4.0)
    near = speech((0.0, 1), (0.9, 1), (0.0, 0.2), (0.9, 1), (0.0, 1), (0.9, 0.1), (0.0, 1))
    ((start, seconds),) = stretches(near, wanted)
    assert start == pytest.approx(0.9, abs=2 * STEP) and seconds == pytest.approx(2.4, abs=4 * STEP)
    long = speech((0.9, 3), (0.6, 0.1), (0.9, 3))
    (first, second) = stretches(long, wanted)
    assert 3 <= first[1] <= 3.2 and first[0] + first[1] == pytest.approx(second[0])
    assert stretches(speech((0.1, 5)), wanted) == []
    with pytest.raises(WavelldmError, match="more than twice"):
        Wanted(shortest=3.0, longest=4.0)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two sentences of a synthetic voice with two seconds of faint noise between them, twice, and a bad file."""
    root, rng = tmp_path_factory.mktemp("raw"), np.random.default_rng(0)
    said, sr = voices.speak("The birch canoe slid on the smooth planks.")[0].numpy(), SR
    pause = 1e-4 * rng.standard_normal(2 * sr).astype(np.float32)
    for name, gain in (("a", 0.3), ("b", 0.05)):
        sf.write(root / f"{name}.wav", gain * np.concatenate([pause, said, pause, said, pause]), sr)
    (root / "bad.wav").write_text("no sound")
    return root


def test_speech_becomes_shards_that_training_reads(recordings, tmp_path):
    result = prepare(str(recordings), str(tmp_path / "one"))
    assert (result["files"], result["failed"], result["stretches"]) == (3, 1, 4)
    lines = [json.loads(line) for line in open(tmp_path / "one/manifest.jsonl")]
    assert {line["source"] for line in lines} == {"a.wav", "b.wav"}
    assert lines[0]["level"] - lines[2]["level"] == pytest.approx(20 * np.log10(6), abs=0.2)
    assert all(line["level"] + line["gain"] <= -25.9 for line in lines)
    items = folder(tmp_path / "one")
    clips = Clips(items, SR, tmp_path / "cache")
    assert len(clips) == 4 and clips.seconds == pytest.approx(sum(line["duration"] for line in lines), abs=0.01)


def test_the_same_recordings_make_the_same_bytes_and_what_is_done_is_not_done_again(recordings, tmp_path):
    for name in ("one", "two"):
        prepare(str(recordings), str(tmp_path / name), Wanted(shard_seconds=1.0))
    one, two = (sorted((tmp_path / name).rglob("*.tar")) for name in ("one", "two"))
    assert len(one) == 2 and [a.read_bytes() for a in one] == [b.read_bytes() for b in two]
    assert len(tarfile.open(one[0]).getnames()) == 4  # two sounds, two .json
    one[0].touch()
    stamp = one[0].stat().st_mtime_ns
    prepare(str(recordings), str(tmp_path / "one"), Wanted(shard_seconds=1.0))
    assert one[0].stat().st_mtime_ns == stamp
