"""The report: simulated listeners with known preferences are recovered, careless ones are left out by the rule."""

import csv
import json
import math

import numpy as np
import pytest

from wavelldm.app.listen import CHECK, REFERENCE, ListeningTest, Trial
from wavelldm.app.listen_report import Ratings, from_files, gather, holm, mos, report, two_way, write
from wavelldm.app.listen_store import Answer, Store
from wavelldm.errors import AudioError, DataError

SYSTEMS = ("new", "old", "worst")
TRUE = {"new": 3.9, "old": 3.4, "worst": 2.0, REFERENCE: 4.6, CHECK: 1.1}


def made(kind, clips=12):
    """A test without sounds."""
    sounds, trials = {}, []

    def add(name, clip, of, **more):
        stimuli = tuple(f"{system}-{clip}" for system in of)
        sounds.update({s: (system, clip) for s, system in zip(stimuli, of)})
        trials.append(Trial(name, clip, stimuli, **more))

    for i in range(clips):
        clip = f"c{i}"
        if kind == "acr":
            for system in (*SYSTEMS, REFERENCE):
                add(f"{system}{i}", clip, (system,))
        elif kind == "mushra":
            add(f"t{i}", clip, (*SYSTEMS, REFERENCE, "anchor35", "anchor70"))
        else:
            for a, b in (("new", "old"), ("new", "worst"), ("old", "worst")):
                add(f"{a}{b}{i}", clip, (a, b))
    for i in range(3 if kind != "mushra" else 0):
        add(f"check{i}", f"c{i}", (CHECK,) if kind == "acr" else ("new", CHECK), check=True)
    return ListeningTest("id", kind, "A test", 16_000, SYSTEMS, tuple(trials), sounds)


def listener(test, seed, careless=False):
    """Answers of one who hears TRUE, shifted by a habit of the listener and one of the clip; or who does not listen."""
    rng = np.random.default_rng(seed)
    habit, answers = 0.4 * rng.standard_normal(), {}
    hard = {f"c{i}": 0.3 * np.random.default_rng(i).standard_normal() for i in range(12)}
    for trial in test.trials:
        heard = {
            s: TRUE.get(test.sounds[s][0], 2.5) + habit + hard[trial.clip] + 0.5 * rng.standard_normal()
            for s in trial.stimuli
        }
        if test.kind == "acr":
            got = {s: int(np.clip(round(v), 1, 5)) for s, v in heard.items()}
            got = {s: int(rng.integers(3, 6)) for s in got} if careless else got
        elif test.kind == "mushra":
            got = {s: int(np.clip(20 * v, 0, 88)) for s, v in heard.items()}
            hidden = next(s for s in trial.stimuli if test.sounds[s][0] == REFERENCE)
            got[hidden] = int(rng.integers(20, 100)) if careless else 100
        elif test.kind == "ab":
            a, b = trial.stimuli
            got = {"prefer": rng.choice([a, b]).item() if careless else a if heard[a] > heard[b] else b}
            if not trial.check and rng.random() < 0.1:
                got = {"prefer": "same"}
        else:
            x, (a, b) = rng.choice(trial.stimuli).item(), trial.stimuli
            known = trial.check or {test.sounds[a][0], test.sounds[b][0]} != {"new", "old"}  # these sound alike to all
            wrong = b if x == a else a
            p = 0.5 if careless or not known else 0.95
            got = {f"x:{x}": x if rng.random() < p else wrong}
        answers[trial.id] = {**got, "done": 1}
    return Ratings(f"listener {seed}", "", answers)


def crowd(test, good=20, careless=5):
    return [listener(test, i) for i in range(good)] + [listener(test, 100 + i, careless=True) for i in range(careless)]


def test_acr_recovers_the_order_the_differences_and_who_did_not_listen():
    test = made("acr")
    found = report(test, crowd(test))
    assert set(found.left_out) >= {f"listener {100 + i}" for i in range(4)} and len(found.left_out) <= 6
    scores = {s.system: s for s in found.scores}
    assert set(scores) == {*SYSTEMS, REFERENCE}  # the check is no system
    for name in ("new", "old", "worst"):
        assert scores[name].low - 0.1 < TRUE[name] < scores[name].high + 0.1
    pair = next(p for p in found.pairs if (p.a, p.b) == ("new", "old"))
    assert pair.value == pytest.approx(0.5, abs=0.15) and pair.low > 0 and pair.p < 0.01
    text = found.text()
    assert text.index("reference") < text.index("\nnew") < text.index("\nold") < text.index("\nworst")
    assert "rates more than a third" in text
    everybody = report(test, crowd(test), keep_all=True)
    assert everybody.left_out == () and everybody.answers == found.answers


def test_acr_finds_no_difference_where_there_is_none():
    test, wrong = made("acr"), 0
    for trial in range(20):
        rng = np.random.default_rng(trial)
        people = [
            Ratings(str(i), "", {t.id: {t.stimuli[0]: int(rng.integers(1, 6))} for t in test.trials if not t.check})
            for i in range(12)
        ]
        wrong += any(p.p < 0.05 for p in report(test, people).pairs)
    assert wrong <= 3  # of 20, as the p of all three pairs hold together


def test_mushra_leaves_out_by_the_hidden_reference_and_recovers_the_order():
    test = made("mushra")
    found = report(test, crowd(test))
    assert set(found.left_out) == {f"listener {100 + i}" for i in range(5)}
    scores = {s.system: s.mean for s in found.scores}
    assert scores[REFERENCE] > scores["new"] > scores["old"] > scores["worst"]
    assert {p.a for p in found.pairs} | {p.b for p in found.pairs} == set(SYSTEMS)
    one = listener(test, 0)
    hidden = [f"{REFERENCE}-c{i}" for i in range(12)]
    for low, out in ((1, False), (2, True)):  # of 12 trials: 8 % and 17 %
        answers = {t: dict(a) for t, a in one.answers.items()}
        for i in range(low):
            answers[f"t{i}"][hidden[i]] = 89
        assert (report(test, [Ratings("x", "", answers)]).left_out == ("x",)) == out


def test_ab_recovers_preferences_and_leaves_ties_out_of_the_test():
    test = made("ab")
    found = report(test, crowd(test, 12, 4))
    assert len(found.left_out) >= 2 and all(name.split()[1] >= "100" for name in found.left_out)
    pairs = {(p.a, p.b): p for p in found.pairs}
    assert set(pairs) == {("new", "old"), ("new", "worst"), ("old", "worst")}  # checks are no pair
    assert pairs["new", "worst"].value > 0.9 and pairs["new", "worst"].p < 0.001
    assert 0.6 < pairs["new", "old"].value < 0.9 and pairs["new", "old"].same > 0
    assert pairs["new", "old"].count + pairs["new", "old"].same == 12 * (16 - len(found.left_out))
    assert "A preferred" in found.text()


def test_abx_tells_what_is_heard_from_what_is_guessed():
    test = made("abx")
    found = report(test, crowd(test, 10, 0))
    pairs = {(p.a, p.b): p for p in found.pairs}
    assert found.left_out == ()
    assert pairs["new", "worst"].value > 0.85 and pairs["new", "worst"].p < 0.001
    assert pairs["new", "old"].low < 0.5 < pairs["new", "old"].high and pairs["new", "old"].p > 0.05
    assert {row[4] for row in found.rows} == {"right", "wrong"}


def test_abx_and_ab_by_hand():
    test = made("abx", 8)
    trials = [t for t in test.trials if t.stimuli[:1] == (t.stimuli[0],) and t.id.startswith("newold")]
    answers = {t.id: {f"x:{t.stimuli[0]}": t.stimuli[0 if i < 7 else 1]} for i, t in enumerate(trials)}
    (pair,) = report(test, [Ratings("a", "", answers)]).pairs
    assert (pair.count, pair.value) == (8, 7 / 8)
    assert pair.p == pytest.approx(sum(math.comb(8, k) for k in (7, 8)) / 2**8)


def test_intervals_hold_for_new_listeners_and_new_clips():
    hits = wide = 0
    for trial in range(120):
        rng = np.random.default_rng(trial)
        x = 3 + 0.5 * rng.standard_normal((12, 1)) + 0.4 * rng.standard_normal((1, 10)) + rng.standard_normal((12, 10))
        mean, low, high = two_way(x, trial)
        hits += low <= 3 <= high
        wide += (high - low) > 2 * 1.96 * x.std() / math.sqrt(x.size)  # what ratings taken as independent would claim
    assert hits / 120 > 0.9 and wide > 100
    assert two_way(np.array([[2.0, np.nan], [np.nan, np.nan]])) == (2.0, 2.0, 2.0)
    assert all(map(math.isnan, two_way(np.full((2, 2), np.nan))))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


# --- files


def saved(test, folder, name, answers, **change):
    facts = {"test": test.id, "listener": {"id": name, "name": "$x$ <b>", "seed": 1}, "answers": answers, **change}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(facts))
    return path


def answers_of(ratings):
    return [
        {"client": f"{trial}-{item}", "trial": trial, "item": item, "value": value}
        for trial, items in ratings.answers.items()
        for item, value in items.items()
    ]


def test_files_of_listeners_count_like_the_ratings_of_the_server(make, tmp_path):
    test = make("acr")
    people = [Ratings(str(i), "", {t.id: {t.stimuli[0]: 1 + (i + n) % 5, "done": 1}
              for n, t in enumerate(test.trials) if not t.practice}) for i in range(3)]  # fmt: skip
    paths = [saved(test, tmp_path, f"p{i}", answers_of(person)) for i, person in enumerate(people)]
    store = Store(test)
    for person in people:
        me = store.listener(store.invite(1)[0])
        store.add(me.id, [Answer(**a) for a in answers_of(person)])
    store.close()
    by_server = report(test, gather(test), keep_all=True).facts()
    by_file = report(test, from_files(test, paths), keep_all=True).facts()
    assert by_server == by_file and by_server["answers"] == 3 * len(answers_of(people[0])) / 2
    twice = from_files(test, [paths[0], paths[0], paths[1]])
    assert len(twice) == 2 and twice[0].answers == people[0].answers
    screened = {s.system: (s.mean, s.low, s.high) for s in report(test, gather(test)).scores}
    assert mos(test.folder) == screened and set(screened) == {"good", "bad", REFERENCE}


ANSWER = {"client": "c", "trial": "x", "item": "y", "value": 3}
STRANGER = json.dumps({"test": "id", "listener": {"id": "a"}, "answers": [ANSWER]}).encode()


@pytest.mark.parametrize(
    "content, said",
    [
        (b"{", "no file of ratings, or is damaged"),
        (b"[]", "no file of ratings"),
        (b'{"test": "id"}', "no file of ratings"),
        (b"\xff\xfe", "no file of ratings"),
        (b"[" * 100_000, "no file of ratings"),
        (b'{"test": "other", "listener": {"id": "a"}, "answers": []}', "ratings of another test"),
        (STRANGER, "does not belong to the test"),
    ],
)
def test_a_file_that_is_none_is_a_sentence_with_its_name(tmp_path, content, said):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"a.json.*{said}"):
        from_files(made("acr"), [path])
    with pytest.raises(DataError, match="does not exist"):
        from_files(made("acr"), [tmp_path / "none.json"])


def test_nobody_yet_and_nobody_left_are_said(make):
    test = make("acr")
    with pytest.raises(DataError, match="has no ratings yet"):
        gather(test)
    Store(test).close()
    with pytest.raises(DataError, match="nobody has rated"):
        gather(test)
    plan = made("acr")
    found = report(plan, [listener(plan, 100, careless=True)])
    assert "nobody is left" in found.text() and found.scores == ()
    json.dumps(found.facts(), allow_nan=False)
    with pytest.raises(DataError, match="needs one of kind acr"):
        mos(make("ab", "pairs").folder)


@pytest.mark.parametrize("kind", ["acr", "mushra", "ab", "abx"])
def test_the_report_is_written_with_a_picture_and_a_table(kind, tmp_path):
    test = made(kind)
    hostile = ListeningTest(**{**test.__dict__, "title": r"$\frac{ <script>"})
    found = report(hostile, crowd(test, 6, 2))
    write(found, tmp_path / "report")
    assert (tmp_path / "report/report.txt").read_text() == found.text() + "\n"
    assert (tmp_path / "report/report.png").read_bytes()[:4] == b"\x89PNG"
    rows = list(csv.DictReader((tmp_path / "report/ratings.csv").open()))
    assert len(rows) == found.answers and {row["kept"] for row in rows} == {"True", "False"}
    with pytest.raises(AudioError, match="exists"):
        write(found, tmp_path / "report")
    write(found, tmp_path / "report", force=True)
