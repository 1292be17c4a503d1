import json

import pytest
import torch
from signals import noisy, speechlike

from wavelldm.app.listen import open_test
from wavelldm.app.listen_store import Answer, Store
from wavelldm.audio import files

SR = 16_000


@pytest.fixture
def systems(tmp_path):
    for i in range(2):
        clean = 0.4 * speechlike(0.4, seed=i)
        for name, wav in (("clean", clean), ("one", noisy(clean, 20)), ("two", noisy(clean, 5))):
            files.save(tmp_path / name / f"c{i}.wav", torch.as_tensor(wav).float(), SR)
    return tmp_path


def test_build_rate_and_report(systems, cli, monkeypatch):
    monkeypatch.chdir(systems)
    words = ("listen", "build", "acr", "better=one", "two", "--reference", "clean", "-o", "test", "--no-checks")
    code, out, err = cli(*words)
    assert code == 0 and "6 trials (0 of them checks) of better, two" in out and "listen serve test" in out
    assert cli(*words)[0] == 1  # it may hold ratings
    code, _, err = cli("listen", "report", "test")
    assert code == 1 and "has no ratings yet" in err
    test = open_test("test")
    store = Store(test)
    for i in range(7):
        me = store.listener(store.invite(1)[0])
        for trial in test.trials:
            value = {"better": 4, "two": 2, "reference": 5}.get(test.sounds[trial.stimuli[0]][0])
            if not trial.practice:
                store.add(me.id, [Answer(f"client-{i}-{trial.id}", trial.id, trial.stimuli[0], value)])
    store.close()
    code, out, _ = cli("listen", "report", "test", "-o", "report")
    assert code == 0 and "better     4.00  4.00..4.00" in out and "+2.00" in out and "0.016" in out
    assert (systems / "report/report.png").exists()
    facts = json.loads(cli("listen", "report", "test", "--json")[1])
    assert facts["listeners"] == 7 and facts["pairs"][0]["p"] == 2 / 2**7
    code, _, err = cli("listen", "report", "test", "-o", "report")
    assert code == 1 and "--force" in err
    assert cli("listen", "report", "test", "-o", "report", "--force")[0] == 0


def test_mistakes_are_sentences(systems, cli, monkeypatch):
    monkeypatch.chdir(systems)
    for words, status, said in (
        (("listen",), 2, "say what to do: build, serve or report"),
        (("listen", "build", "mushra", "one", "-o", "t"), 1, "needs the reference"),
        (("listen", "serve", "one"), 1, "is no listening test"),
        (("listen", "report", "none"), 1, "is no listening test"),
        (("listen", "report", "one", "--force"), 1, "leave --force out"),
    ):
        code, _, err = cli(*words)
        assert code == status and said in err, words


def test_real_mos_stand_in_the_row_of_ljspeech(systems, cli, monkeypatch):
    monkeypatch.chdir(systems)
    for name in ("one", "two"):
        (systems / name / "c1.wav").unlink()
    (systems / "clean").rename("wavs")
    cli("listen", "build", "acr", "one", "two", "-o", "test", "--no-checks")
    test = open_test("test")
    store = Store(test)
    me = store.listener(store.invite(1)[0])
    for trial in (t for t in test.trials if not t.practice):
        value = 4 if test.sounds[trial.stimuli[0]][0] == "one" else 1
        store.add(me.id, [Answer(f"client-{trial.id}", trial.id, trial.stimuli[0], value)])
    store.close()
    code, out, _ = cli("evaluate", "--protocol", "ljspeech", ".", "one", "--mos", "test", "--workers", 1)
    row = next(line for line in out.splitlines() if line.startswith("one"))
    assert code == 0 and row.split()[-1] == "4.00" and "MOS" in out
    facts = json.loads(cli("evaluate", "--protocol", "ljspeech", ".", "one", "--mos", "test", "--json")[1])
    assert facts["mos"]["two"] == [1.0, 1.0, 1.0]
