import json

import pytest
import torch

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.codec.model import Codec
from wavelldm.training.presets import preset


def test_compress_and_decompress(cli, tmp_path, noise):
    torch.manual_seed(0)
    model = weights.save(tmp_path / "tiny", Codec(preset("tiny").codec))
    files.save(tmp_path / "a.flac", noise(9.0, 44_100, 2), 44_100)
    code, out, _ = cli("compress", tmp_path / "a.flac", "--model", model, "--codebooks", 3)
    assert code == 0 and "a.wll" in out and "9.0 s of sound, 2 x 44100 Hz, 3 codebooks" in out
    code, out, err = cli("compress", tmp_path / "a.flac", "--model", model)
    assert code == 1 and "--force" in err
    code, out, _ = cli("compress", tmp_path / "a.flac", "-o", tmp_path / "b.wll", "--model", model, "--json")
    facts, size = json.loads(out), (tmp_path / "b.wll").stat().st_size
    assert code == 0 and facts["bytes"] == size and facts["bits_per_second"] == pytest.approx(8 * size / 9)
    assert facts["plain_bits_per_second"] == pytest.approx(2 * 3476.7, abs=0.1) and facts["codebooks"] == 4

    code, out, _ = cli("decompress", tmp_path / "b.wll", "--model", model)
    back = files.info(tmp_path / "b.decoded.wav")
    assert code == 0 and (back.sr, back.channels, back.frames) == (44_100, 2, 9 * 44_100)
    code, _, err = cli("decompress", tmp_path / "b.wll", "--model", model)
    assert code == 1 and "--force" in err
    code, _, err = cli("decompress", tmp_path / "b.wll", "-o", tmp_path / "c.wav")
    assert code == 1 and "no weights called 'tiny'" in err and not (tmp_path / "c.wav").exists()

    (tmp_path / "b.wll").write_bytes((tmp_path / "b.wll").read_bytes()[:-1])
    code, out, err = cli("decompress", tmp_path / "b.wll", "-o", tmp_path / "c.flac", "--model", model, "--json")
    facts = json.loads(out)
    assert code == 1 and facts["seconds"] == 8.192 and not facts["complete"]
    assert "cut short" in err and "cut short" in facts["error"]
    assert files.info(tmp_path / "c.flac").frames == pytest.approx(8.192 * 44_100, abs=1)
    assert cli("decompress", tmp_path / "a.flac", "--model", model)[0] == 1
