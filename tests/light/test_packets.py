"""Codes in packets: alone, in disorder, with gaps; and the commands that send and receive them."""

import io
import random
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import signals
import soundfile
import torch

from wavelldm.cli.main import main
from wavelldm.codec.compress import identity
from wavelldm.codec.fsq import ABSENT
from wavelldm.codec.model import Codec
from wavelldm.codec.talk import coder
from wavelldm.errors import WavelldmError
from wavelldm.light import packets
from wavelldm.light.packets import Receiver, Sender, with_gaps
from wavelldm.training.presets import preset
from wavelldm.weights import save


def speechlike(n):
    return signals.speechlike(n / 16_000)[:n].astype(np.float32)


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    return Codec(replace(preset("tiny").codec, decoder="pulse", pitch_input=True, causal=True, ahead=1)).eval()


@pytest.fixture(scope="module")
def talk(codec):
    return coder(codec)


def sent(talk, wav, size=700, **choices):
    sender = Sender(talk, **choices)
    return [p for i in range(0, len(wav), size) for p in sender.push(wav[i : i + size])] + sender.finish()


def taken(receiver, count):
    return np.concatenate([receiver.take() for _ in range(count)] + [receiver.finish()])


def played(talk, arriving, count):
    receiver = Receiver(talk)
    receiver.next = 0
    for packet in arriving:
        receiver.put(packet)
    return taken(receiver, count), receiver


def codes_of(codec, wav):
    return codec.quantise(codec.encode(torch.from_numpy(wav)[None, None], codec.sr))[1]  # (1, K, T)


def decoded_with_gaps(codec, wav, lost):
    """What the codec makes of the whole, where nothing of the frames `lost` arrived."""
    codes = codes_of(codec, wav)
    codes[..., lost] = ABSENT
    return codec.codes_to_wav(codes)[0, 0].numpy()


@pytest.mark.parametrize("repeat", [0, 2])
@torch.no_grad()
def test_packets_in_order_are_the_whole_recording(talk, codec, repeat):
    wav = speechlike(10_000)
    all_packets = sent(talk, wav, repeat=repeat)
    assert [len(p) for p in all_packets] == [7 + 7 * min(i + 1, repeat + 1) for i in range(40)]
    out, receiver = played(talk, all_packets, 40)
    assert len(out) == 40 * codec.hop and receiver.lost == receiver.late == receiver.held == 0
    assert np.allclose(out, decoded_with_gaps(codec, wav, []), atol=2e-3)


@torch.no_grad()
def test_packets_do_not_depend_on_blocks_and_each_is_decoded_alone(talk, codec):
    wav = speechlike(6_000)
    all_packets = sent(talk, wav)
    assert all_packets == sent(talk, wav, size=6_000)
    codes = codes_of(codec, wav)[0].T.tolist()
    order = list(range(len(all_packets)))
    random.Random(0).shuffle(order)
    for i in order:  # nothing of the other packets is needed
        assert packets.opened(all_packets[i], talk) == (i, [codes[i]])


@torch.no_grad()
def test_fewer_codebooks_make_smaller_packets(talk, codec):
    wav = speechlike(3_000)
    small = sent(talk, wav, codebooks=2)
    assert {len(p) for p in small} == {7 + 4}
    out, _ = played(talk, small, len(small))
    codes = codes_of(codec, wav)
    assert np.allclose(out, codec.codes_to_wav(codes[:, :2])[0, 0].numpy(), atol=2e-3)


@torch.no_grad()
def test_repeats_close_gaps_that_are_short_enough(talk, codec):
    wav = speechlike(10_000)
    all_packets = sent(talk, wav, repeat=1)
    arriving = [p for i, p in enumerate(all_packets) if i not in (5, 11, 12)]
    out, receiver = played(talk, arriving, 40)
    assert (receiver.lost, receiver.late) == (1, 0)
    assert np.allclose(out, decoded_with_gaps(codec, wav, [11]), atol=2e-3)
    receiver = Receiver(talk)  # frame by frame, each packet at the last moment
    blocks = list(packets.decoded(receiver, arriving))
    assert np.allclose(np.concatenate(blocks, axis=1)[0], out) and receiver.lost == 1


@torch.no_grad()
def test_disorder_and_doubles_change_nothing_and_a_gap_is_passed_over(talk, codec):
    wav = speechlike(10_000)
    all_packets = sent(talk, wav)
    lost = [5, 11, 12, 13]
    arriving = [p for i, p in enumerate(all_packets) if i not in lost]
    disorder = [*arriving, *arriving[::3]]
    random.Random(1).shuffle(disorder)
    out, receiver = played(talk, disorder, 40)
    assert receiver.lost == 4 and receiver.late == 0
    assert np.allclose(out, decoded_with_gaps(codec, wav, lost), atol=2e-3)
    assert not np.allclose(out, decoded_with_gaps(codec, wav, []), atol=2e-3)


def test_a_packet_that_comes_too_late_is_counted_and_dropped(talk):
    all_packets = sent(talk, speechlike(3_000))
    receiver = Receiver(talk)
    assert not receiver.take().any(), "silence before the first packet"
    receiver.put(all_packets[0])
    receiver.put(all_packets[2])
    assert receiver.held == 3
    receiver.take(), receiver.take()
    receiver.put(all_packets[1])
    assert (receiver.lost, receiver.late, receiver.held) == (1, 1, 1)


def test_a_sender_that_starts_anew_and_a_count_that_wraps_are_followed(talk):
    all_packets = sent(talk, speechlike(3_000))
    receiver = Receiver(talk)
    receiver.put(all_packets[0][:3] + (100_000).to_bytes(4, "little") + all_packets[0][7:])
    receiver.take()
    receiver.put(all_packets[0])
    assert receiver.next == 0 and receiver.held == 1
    end = packets.WRAP - 1
    receiver.put(all_packets[0][:3] + end.to_bytes(4, "little") + all_packets[0][7:])
    assert receiver.late == 1, "one before the first: counted backwards over the wrap"
    receiver = Receiver(talk)
    receiver.put(all_packets[0][:3] + end.to_bytes(4, "little") + all_packets[0][7:])
    receiver.put(all_packets[0])
    assert receiver.held == 2, "the first one of the next round comes next"


def test_a_long_gap_fades_to_silence_without_a_step_and_comes_back(talk):
    all_packets = sent(talk, speechlike(10_000))
    receiver = Receiver(talk)
    for packet in all_packets[:8]:
        receiver.put(packet)
    for _ in range(8):
        receiver.take()
    gains = np.concatenate([np.ones(256) * receiver._fade(256) for _ in range(20) if receiver.take() is not None])
    assert np.abs(np.diff(gains)).max() < 0.001 and gains[0] == 1 and not gains[-1024:].any()
    assert not receiver.take().any()
    receiver.put(all_packets[29])
    assert receiver.take().any()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda p: b"", "0 bytes is none"),
        (lambda p: p[:7], "cut short"),
        (lambda p: bytes([p[0] ^ 1]) + p[1:], "other weights"),
        (lambda p: p[:-1], "damaged"),
        (lambda p: p[:2] + b"\x07" + p[3:], "damaged"),
        (lambda p: p[:2] + b"\x00" + p[3:], "damaged"),
        (lambda p: p[:7] + b"\xff" * 7, "damaged"),
    ],
)
def test_foreign_and_damaged_packets_get_a_sentence_and_leave_the_receiver_as_it_was(talk, change, message):
    packet = sent(talk, speechlike(500))[0]
    receiver = Receiver(talk)
    with pytest.raises(WavelldmError, match=message):
        receiver.put(change(packet))
    assert receiver.next is None and receiver.held == 0
    receiver.put(packet)
    assert receiver.held == 1


def test_random_bytes_never_break_the_receiver(talk):
    receiver, draw = Receiver(talk), random.Random(0)
    for _ in range(500):
        noise = draw.randbytes(draw.randrange(40))
        try:
            receiver.put(talk.tag + b"\x04" + noise if draw.random() < 0.5 else noise)
        except WavelldmError:
            pass
    assert np.isfinite(receiver.take()).all()


def test_gaps_are_as_frequent_as_asked():
    rows = list(range(40_000))
    kept = list(with_gaps(rows, 0.2))
    assert len(kept) == pytest.approx(32_000, rel=0.03) and kept == sorted(kept)
    starts = sum(b - a > 1 for a, b in zip(kept, kept[1:]))
    assert (40_000 - len(kept)) / starts == pytest.approx(2, rel=0.05), "gaps of two in the mean"
    assert list(with_gaps(rows[:100], 0.0)) == rows[:100]
    with pytest.raises(WavelldmError, match="between 0 and 1"):
        list(with_gaps(rows, 1.0))


def test_a_file_that_is_cut_short_gives_what_is_whole(talk):
    all_packets = sent(talk, speechlike(2_000))
    file = io.BytesIO()
    assert packets.write_packets(file, all_packets) == (8, 4 + 8 * 16)
    for cut, whole in ((0, 8), (1, 7), (15, 7), (17, 6), (128, 0)):
        assert list(packets.read_packets(io.BytesIO(file.getvalue()[: 132 - cut]))) == all_packets[:whole]
    with pytest.raises(WavelldmError, match="holds no packets"):
        list(packets.read_packets(io.BytesIO(b"RIFF....")))


def test_weights_with_the_same_codes_talk_to_each_other(codec, talk):
    """A better decoder for the same codes plays what the older weights sent, and is understood by them."""
    newer = deepcopy(codec)
    torch.nn.init.normal_(newer.decoder.gains.bias)
    wav, packets = speechlike(3_000), {}
    with pytest.raises(WavelldmError, match="other weights"):
        Receiver(talk).put(sent(coder(newer), wav)[0])
    newer.reads = (identity(codec),)
    for name, one in (("older", talk), ("newer", coder(newer))):
        packets[name] = sent(one, wav)
    assert packets["older"] == packets["newer"]
    heard, _ = played(coder(newer), packets["older"], len(packets["older"]))
    same, _ = played(talk, packets["newer"], len(packets["newer"]))
    assert len(heard) == len(same) and not np.allclose(heard, same)


def test_codecs_that_hear_the_whole_recording_are_refused():
    codec = Codec(preset("tiny").codec)
    with pytest.raises(WavelldmError, match="voice16k-live"):
        coder(codec)


@pytest.fixture
def model(codec, tmp_path):
    return str(save(tmp_path / "own.safetensors", codec))


def test_the_commands_with_files(talk, model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wav = 0.3 * torch.randn(2, 44_100, generator=torch.Generator().manual_seed(0))
    soundfile.write("talk.wav", wav.T.numpy(), 44_100)
    assert main(["compress", "talk.wav", "--live", "--model", model]) == 0
    assert "1.0 s of sound, 63 packets, 1012 bytes: 8.10 kbit/s" in capsys.readouterr().out
    assert main(["decompress", "talk.wlp", "--model", model]) == 0
    assert "0 frames lost" in capsys.readouterr().out
    whole, sr = soundfile.read("talk.decoded.wav")
    assert sr == 16_000 and whole.shape == (63 * 256,)
    assert main(["decompress", "talk.wlp", "--model", model, "--loss", "0.3", "-o", "lossy.wav"]) == 0
    lossy, _ = soundfile.read("lossy.wav")
    assert 0 < len(lossy) <= len(whole) and not np.allclose(lossy[: len(whole)], whole[: len(lossy)])
    for words, message in (
        (["compress", "talk.wav", "--live"], "exists"),
        (["decompress", "talk.wlp"], "exists"),
        (["compress", "talk.wav", "--live", "-o", "talk.wll"], ".wlp"),
        (["compress", "talk.wav", "--live", "--search", "5"], "no --search"),
        (["compress", "talk.wav", "--live", "--quick"], "no --quick"),
        (["compress", "-"], "add --live"),
        (["compress", "talk.wav", "--repeat", "1"], "add --live"),
        (["decompress", "none.wlp"], "does not exist"),
        (["decompress", "talk.wll", "--loss", "0.1"], "--loss is for packets"),
        (["compress", "talk.wav", "--live", "-o", "-", "--json"], "no room for --json"),
    ):
        assert main([*words, "--model", model]) == 1, words
        assert message in capsys.readouterr().err, words


def test_packets_pass_through_a_pipe_as_they_come(model, tmp_path):
    """A WAV stream that has not ended: packets of what was said by now come out, and their sound."""
    run = [sys.executable, "-m", "wavelldm"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        subprocess.Popen([*run, "compress", "--live", "-", "--model", model], **pipes) as sender,
        subprocess.Popen([*run, "decompress", "-", "--model", model], **pipes) as receiver,
    ):
        file = io.BytesIO()
        soundfile.write(file, 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000, format="WAV")
        sender.stdin.write(file.getvalue()[: 44 + 2 * 8_000])
        sender.stdin.flush()
        data = sender.stdout.read(4 + 30 * 16)  # of 31 frames one waits for what follows
        receiver.stdin.write(data)
        receiver.stdin.flush()
        head = receiver.stdout.read(44)
        sound = receiver.stdout.read(2 * (30 * 256 - 128))
        assert head[:4] == b"RIFF" and len(sound) == 2 * (30 * 256 - 128)
        sender.stdin.close(), receiver.stdin.close()
        assert receiver.stdout.read() and sender.stdout.read()
    assert sender.returncode == receiver.returncode == 0
