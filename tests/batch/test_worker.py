import io
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile as sf
from batched import SR, begun, noisy, tree
from pyarrow import parquet

from wavelldm.batch import ledger
from wavelldm.batch.sources import items_of
from wavelldm.batch.tasks import Settings
from wavelldm.batch.worker import Batch, Worker
from wavelldm.errors import WavelldmError
from wavelldm.light import denoiser
from wavelldm.light.shards import samples


def test_outputs_equal_those_of_one_machine_to_the_byte(tmp_path):
    source = tree(tmp_path / "in")
    sf.write(source / "long.wav", np.stack([noisy(14), noisy(14, 1)], 1), 8_000)  # over several spans; stereo
    (source / "bad.wav").write_text("not a sound")
    worker, batches, place = begun(source, tmp_path / "out")
    assert sum(worker(batch)["failed"] for batch in batches) == 1
    for path in source.rglob("*.wav"):
        name = path.relative_to(source)
        if name.stem == "bad":
            continue
        denoiser.load().enhance_file(path, tmp_path / "alone.wav", force=True, progress=False)
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone.wav").read_bytes()
    rows = {row["output"]: row for row in ledger.finish(place).to_pylist()}
    assert len(rows) == 5 and "cannot be read as sound" in rows["bad.wav"]["error"]
    assert (rows["long.wav"]["channels"], rows["long.wav"]["rate"]) == (2, 8_000)
    assert rows["long.wav"]["seconds"] == pytest.approx(28)
    assert not list((tmp_path / "out/_batch/scratch").iterdir()), "nothing half-made is left"


def test_memory_does_not_grow_with_the_length_of_a_file(tmp_path):
    script = f"""
from wavelldm.batch.tasks import Settings
from wavelldm.batch.worker import Batch, Worker
from wavelldm.batch.sources import Item
worker = Worker({str(tmp_path / "out")!r}, Settings("denoise", "x"))
for name in ("short.wav", "long.wav"):
    print(worker(Batch((Item(name, {str(tmp_path)!r}, name, 1.0),)))["megabytes"])
"""
    for name, seconds in (("short", 20), ("long", 120)):
        sf.write(tmp_path / f"{name}.wav", np.tile(noisy(2), seconds // 2), SR, subtype="PCM_16")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    short, long = map(float, done.stdout.split())
    assert long - short < 6, done.stderr  # the sound alone would take 8 MB more


def test_clips_that_go_through_pytorch_together_equal_those_alone(tmp_path):
    from wavelldm.batch import tasks

    source = tree(tmp_path / "in", 4)
    worker = Worker(str(tmp_path / "together"), Settings("denoise", str(source), batch_seconds=4.0))
    worker.task = tasks.denoise_together(worker.settings)
    alone = Worker(str(tmp_path / "alone"), Settings("denoise", str(source)))
    for one in (worker, alone):
        batch = Batch(tuple(items_of(str(source), one.target)))
        assert one(batch)["failed"] == 0
    for path in source.rglob("*.wav"):
        name = path.relative_to(source)
        a, b = (sf.read(tmp_path / folder / name, dtype="int16")[0].astype(int) for folder in ("together", "alone"))
        assert np.abs(a - b).max() <= 1


@pytest.mark.parametrize("task", ["compress", "codes"])
def test_codes_are_those_of_the_codec(tmp_path, task):
    import torch

    from wavelldm import weights
    from wavelldm.codec import compress
    from wavelldm.codec.model import Codec

    source = tree(tmp_path / "in", 1)
    worker, batches, _ = begun(source, tmp_path / "out", task=task, codebooks=2)
    assert [worker(batch)["failed"] for batch in batches] == [0]
    codec, wav = weights.load("voice16k", Codec), next(source.rglob("*.wav"))
    if task == "compress":
        compress.compress_file(wav, tmp_path / "alone.wll", codec, 2, progress=False)
        assert (tmp_path / "out/speaker0/clip0.wll").read_bytes() == (tmp_path / "alone.wll").read_bytes()
        return
    codes = np.load(tmp_path / "out/speaker0/clip0.npy")
    sound = torch.from_numpy(sf.read(wav, dtype="float32")[0])[None]
    expected = torch.cat(list(compress.encode_blocks(codec, [sound], 2)), -1)
    assert codes.dtype == np.uint16 and np.array_equal(codes, expected.numpy())


def test_measuring_writes_the_report_alone(tmp_path):
    source = tree(tmp_path / "in", 1)
    worker, batches, place = begun(source, tmp_path / "out", task="evaluate", reference=str(source))
    assert [worker(batch)["failed"] for batch in batches] == [0]
    (row,) = ledger.finish(place).to_pylist()
    assert 1 <= row["dnsmos_ovrl"] <= 5 and row["estoi"] == pytest.approx(100, abs=1e-3)
    assert [p.name for p in (tmp_path / "out").iterdir() if p.is_file()] == ["report.parquet"]


# --- shards


def shard(path: Path, clips: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in clips.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def wav_bytes(seconds, seed=0):
    file = io.BytesIO()
    sf.write(file, noisy(seconds, seed), SR, format="WAV", subtype="PCM_16")
    return file.getvalue()


def test_a_shard_becomes_a_shard_with_all_else_kept(tmp_path):
    clips = {"a.wav": wav_bytes(0.5), "a.json": b'{"text": "x"}', "b.wav": b"bad", "b.txt": b"y", "c.txt": b"z"}
    shard(tmp_path / "in/000.tar", clips)
    worker, batches, place = begun(tmp_path / "in", tmp_path / "out")
    assert [worker(batch)["failed"] for batch in batches] == [1]
    with open(tmp_path / "out/000.tar", "rb") as file:
        found = dict(samples(file, "000.tar"))
    assert list(found) == ["a", "c"] and found["a"]["json"] == clips["a.json"] and found["c"]["txt"] == b"z"
    wav, sr = sf.read(io.BytesIO(found["a"]["wav"]))
    assert len(wav) == SR // 2 and sr == SR
    table = ledger.finish(place)
    bad = next(row for row in table.to_pylist() if row["error"])
    assert bad["path"] == f"{tmp_path}/in/000.tar/b.wav" and "_batch" not in bad["error"]
    assert "000.tar" not in ledger.finished(table), "the same command tries the bad clip again"


def test_a_table_of_sounds_becomes_one_with_all_else_kept(tmp_path):
    sounds = [{"bytes": wav_bytes(0.5), "path": "a.wav"}, {"bytes": b"bad", "path": "b.wav"}, None]
    (tmp_path / "in").mkdir()
    parquet.write_table(pa.table({"text": ["x", "y", "z"], "audio": sounds}), tmp_path / "in/0.parquet")
    worker, batches, place = begun(tmp_path / "in", tmp_path / "out")
    assert [worker(batch)["failed"] for batch in batches] == [1]
    found = parquet.read_table(tmp_path / "out/0.parquet").to_pylist()
    assert [row["text"] for row in found] == ["x", "z"] and found[1]["audio"] is None
    (tmp_path / "a.wav").write_bytes(sounds[0]["bytes"])
    denoiser.load().enhance_file(tmp_path / "a.wav", tmp_path / "alone.wav", progress=False)
    assert found[0]["audio"] == {"bytes": (tmp_path / "alone.wav").read_bytes(), "path": "a.wav"}
    rows = {row["output"]: row for row in ledger.finish(place).to_pylist()}
    assert set(rows) == {"0.parquet/a.wav", "0.parquet/b.wav"} and rows["0.parquet/a.wav"]["seconds"] == 0.5
    bad = rows["0.parquet/b.wav"]
    assert bad["path"] == f"{tmp_path}/in/0.parquet/b.wav" and "cannot be read as sound" in bad["error"]


def test_a_table_of_sounds_becomes_one_of_codes(tmp_path):
    table = pa.table({"audio": [{"bytes": wav_bytes(0.5), "path": "a.wav"}]}).replace_schema_metadata(
        {"huggingface": "x"}
    )
    (tmp_path / "in").mkdir()
    parquet.write_table(table, tmp_path / "in/0.parquet")
    worker, batches, _ = begun(tmp_path / "in/0.parquet", tmp_path / "out", task="codes")
    assert [worker(batch)["failed"] for batch in batches] == [0]
    made = parquet.read_table(tmp_path / "out/0.parquet")
    (row,) = made["audio"].to_pylist()
    codes = np.load(io.BytesIO(row["bytes"]))
    assert row["path"] == "a.npy" and codes.ndim == 3 and len(codes) == 1
    assert not made.schema.metadata, "it does not call codes a sound"


def test_files_become_shards_that_webdataset_reads(tmp_path):
    import webdataset

    source = tree(tmp_path / "in", 3)
    worker, batches, place = begun(source, tmp_path / "out", shards=True)
    for batch in batches:
        assert worker(batch)["failed"] == 0
    rows = ledger.finish(place).to_pylist()
    tars = sorted({str(tmp_path / "out" / row["shard"]) for row in rows})
    found = {sample["__key__"]: len(sample["wav"]) for sample in webdataset.WebDataset(tars, shardshuffle=False)}
    assert found == {row["output"].removesuffix(".wav"): row["bytes"] for row in rows} and len(found) == 3
    assert ledger.finished(ledger.collect(place)[0]) >= {row["output"] for row in rows}


# --- what goes wrong


def test_a_file_that_kills_its_process_is_named_and_the_others_are_done(tmp_path):
    """The worker is really killed, twice: while it works on the batch, and again on the same file."""
    source = tree(tmp_path / "in")
    worker, batches, place = begun(source, tmp_path / "out")
    batch = Batch(tuple(item for batch in batches for item in batch.items))
    whole = worker.task

    def deadly(jobs):
        for job in jobs:
            if job[2].endswith("clip1.wav"):
                os.kill(os.getpid(), signal.SIGKILL)
            yield from whole([job])

    for _ in range(2):
        child = os.fork()
        if child == 0:
            worker.task = deadly
            worker(batch)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    row = worker(batch)  # a third process, for which the file is harmless: it does not try
    assert (row["files"], row["failed"]) == (3, 1)
    rows = {r["output"]: r["error"] for r in ledger.finish(place).to_pylist()}
    assert "died twice" in rows["speaker1/clip1.wav"] and sum(e is None for e in rows.values()) == 2
    place.clear(ledger.SCRATCH)


def test_a_process_that_died_once_costs_no_file(tmp_path):
    source = tree(tmp_path / "in")
    worker, batches, place = begun(source, tmp_path / "out")
    child = os.fork()
    if child == 0:
        worker.task = lambda jobs: os.kill(os.getpid(), signal.SIGKILL)
        worker(batches[0])
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert [worker(batch)["failed"] for batch in batches] == [0] * len(batches)
    assert worker(batches[0])["files"] == len(batches[0].items), "done already: answered from the ledger"
    assert len(ledger.finish(place)) == 3


def test_a_full_disk_stops_the_run_and_nothing_half_written_is_left(tmp_path):
    """On a disk of one megabyte, mounted for a process of its own."""
    source = tree(tmp_path / "in")
    sf.write(source / "much.wav", noisy(45), SR)  # 1.4 MB
    (tmp_path / "disk").mkdir()
    (tmp_path / "fill.py").write_text(f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from batched import begun
worker, batches, place = begun({str(source)!r}, {str(tmp_path / "disk/out")!r})
print(worker(batches[0])["stop"], [name for name, _ in place.listing() if name.endswith(".wav")])
""")
    mounted = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}/disk && exec {sys.executable} {tmp_path}/fill.py"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mounted], capture_output=True, text=True)
    assert done.stdout.strip().endswith("make room, and the same command goes on []"), done.stderr


def test_another_run_in_the_same_folder_is_refused(tmp_path):
    source = tree(tmp_path / "in", 1)
    begun(source, tmp_path / "out")
    with pytest.raises(WavelldmError, match="holds a run with strength 1.0, not 0.5"):
        begun(source, tmp_path / "out", strength=0.5)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.wav").write_text("precious")
    with pytest.raises(WavelldmError, match="holds other files"):
        begun(source, tmp_path / "other")
