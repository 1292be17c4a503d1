"""What notebook 08 builds by hand is what the module has, and its sliders change what is heard."""

import math

import pytest
import torch
from lift import catch_displays, definitions, move, slider_cell
from signals import speechlike

from wavelldm.audio import files
from wavelldm.audio import mel as griffin
from wavelldm.audio.mel import MELS, LogMel, bank_of
from wavelldm.course import notebook, widgets
from wavelldm.data.corpora import Item
from wavelldm.ladder import autoencoder, phase, refinement, report, rungs
from wavelldm.mel import vae
from wavelldm.training.presets import preset

HAND = definitions("08")
MEL, SR = MELS["audioldm2"], 16_000
WAV = torch.from_numpy(speechlike(1.2))[None, None].float()


def some(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_definitions_are_the_notebooks_own():
    names = "to_magnitudes griffin_lim best_snr forget_phase in_levels kl reparameterise Refinement".split()
    names += "edges post_filter mdct imdct cost score".split()
    assert {HAND[name].__module__ for name in names} == {"08_reconstruction_ladder"}
    assert HAND["MEL"] == MEL and HAND["FLOATS"] == 6_400 and HAND["HOP"] == preset("ladder").autoencoder.hop


def test_griffin_lim_is_the_modules():
    mel = LogMel(MEL)(WAV, SR)
    size = HAND["to_magnitudes"](mel, bank_of(MEL))
    assert torch.allclose(size, griffin.mel_to_magnitude(mel, MEL), atol=1e-6)
    for iterations, momentum, seed in ((0, 0.99, 0), (1, 0.0, 1), (6, 0.99, 2)):
        mine = HAND["griffin_lim"](size, MEL, iterations, WAV.shape[-1], momentum, seed)
        assert torch.allclose(
            mine,
            griffin.griffin_lim(size, MEL, iterations, momentum, seed, WAV.shape[-1]),
            atol=1e-3 * mine.abs().max(),
        )


def test_physics_is_the_modules():
    for rho in (0, 0.3, -0.9, 1, -1):
        assert HAND["best_snr"](rho) == phase.best_snr(rho)
    for snr in (0, 5, 10, 30):
        assert HAND["needed_correlation"](snr) == pytest.approx(phase.needed_correlation(snr))
    assert torch.allclose(HAND["forget_phase"](WAV, 3), phase.forget_phase(WAV, 3), atol=1e-6)
    assert HAND["best_gain"](WAV, 2 * WAV) == pytest.approx(phase.best_gain(WAV, 2 * WAV).item()) == 0.5


def test_phases_that_are_a_little_off_leave_the_correlation_of_a_turned_pointer():
    assert torch.allclose(HAND["disturb"](WAV, 0), WAV, atol=1e-5)
    kept = [float((HAND["disturb"](WAV, d) * WAV).sum() / WAV.square().sum()) for d in (20, 45, 90)]
    for degrees, share in zip((20, 45, 90), kept):  # before the energy is counted, overlap or not
        assert share == pytest.approx(math.exp(-(math.radians(degrees) ** 2) / 2), abs=0.03)


@pytest.mark.parametrize("kind", ("log", "zscore", "percentile", "tanh"))
def test_levels_are_the_modules(kind, monkeypatch):
    monkeypatch.setattr(rungs, "ITERATIONS", 2)
    mel = LogMel(MEL)(WAV, SR)
    (rung,) = [r for r in rungs.normalisation_rungs(MEL) if r.name.startswith(kind)]
    theirs = rung.run(WAV, "")
    coarse = HAND["in_levels"](mel, kind, 3)
    assert len(coarse.unique()) <= 8
    assert torch.allclose(
        griffin.mel_to_wav(coarse, MEL, 2, length=WAV.shape[-1]), theirs.wav, atol=1e-4 * theirs.wav.abs().max()
    )
    monkeypatch.setitem(HAND, "by_griffin_lim", lambda mel, length: torch.zeros(1, 1, length))
    assert HAND["rounded_rung"](kind, 3)(WAV).bits == pytest.approx(theirs.bits)


def test_the_gaussians_are_the_modules():
    mean, logvar = some(2, 8, 5, 4), some(2, 8, 5, 4, seed=1)
    assert torch.equal(HAND["kl"](mean, logvar), vae.kl(mean, logvar)) and HAND["kl"](0 * mean, 0 * logvar) == 0
    draws = [f(mean, logvar, torch.Generator().manual_seed(2)) for f in (HAND["reparameterise"], vae.reparameterise)]
    assert torch.equal(*draws)


def test_refinement_is_the_modules():
    theirs = refinement.Refinement(preset("ladder").refinement)
    c = preset("ladder").refinement
    mine = HAND["Refinement"](MEL.n_mels, c.width, c.depth, c.expansion)
    mel, other = some(2, MEL.n_mels, 30) - 5, some(2, MEL.n_mels, 30, seed=1) - 5
    assert torch.equal(mine(mel), mel), "untrained it changes nothing"
    torch.nn.init.normal_(theirs.out.weight)
    mine.load_state_dict(theirs.state_dict())
    assert torch.equal(mine(mel), theirs(mel)) and not torch.equal(mine(mel), mel)
    assert torch.equal(HAND["edges"](mel, other), refinement.edges(mel, other))
    for sharpen in (0.0, 0.2, 1.0):
        assert torch.allclose(HAND["post_filter"](mel, sharpen), refinement.post_filter(mel, sharpen), atol=1e-6)


@pytest.mark.parametrize("n,hop", [(1, 4), (7, 4), (3_201, 320)])
def test_the_transform_is_the_modules(n, hop):
    wav = some(2, 1, n)
    x = HAND["mdct"](wav, hop)
    assert torch.equal(HAND["mdct_basis"](hop), autoencoder.basis(hop)) and torch.allclose(
        x, autoencoder.mdct(wav, hop), atol=1e-6
    )
    assert torch.allclose(HAND["imdct"](x, n), autoencoder.imdct(x, n), atol=1e-6) and torch.allclose(
        HAND["imdct"](x, n), wav, atol=1e-5
    )
    left = HAND["lowest"](WAV, 40)
    assert torch.allclose(left.wav, autoencoder.lowest(WAV, 320, 40), atol=1e-6) and left.floats == 2_000


def test_bits_are_the_modules_without_its_outliers(monkeypatch):
    monkeypatch.setattr(autoencoder, "OUTLIER_SHARE", 0.0)
    numbers = torch.arange(-300.0, 301.0)
    for scale in (0.05, 0.7, 9.0):
        bits = HAND["cost"](numbers, torch.tensor(scale))
        assert torch.allclose(bits, autoencoder.cost(numbers, torch.tensor(scale)), atol=1e-5)
        assert (2**-bits).sum().item() == pytest.approx(1, abs=1e-5)


def test_water_is_level_and_every_bit_is_spent():
    variances = torch.tensor([100.0, 10.0, 1.0, 0.1, 1e-9])
    for bits in (0.2, 1.0, 3.0):
        share, water = HAND["water_fill"](variances, bits)
        assert share.mean().item() == pytest.approx(bits, abs=1e-4)
        error = variances * 4**-share
        over = variances > water
        assert torch.allclose(error[over], water.expand(int(over.sum())), rtol=1e-3) and not share[~over].any()
        best = error.sum()
        for i, j in ((0, 1), (1, 0)):  # moving bits from one to another makes it worse
            moved = share.clone()
            step = min(0.1, moved[i].item())
            moved[i], moved[j] = moved[i] - step, moved[j] + step
            assert step == 0 or (variances * 4**-moved).sum() > best
    assert HAND["predicted"](torch.ones(4), 2.0) == pytest.approx(20 * math.log10(4), abs=1e-3)  # 6 dB a bit


def test_side_information_is_worth_most_where_the_latent_is_narrow():
    def classes(seed):
        return {
            name: 2 * some(1, 12, seed=k) + some(400, 12, seed=10 * k + seed) for k, name in enumerate("abc", start=1)
        }

    results = [HAND["side_information"](classes(0), classes(1), k) for k in (0, 1, 6, 12)]
    nothing, told, wrong = zip(*results)
    assert told[0] < 0.8 * nothing[0] and wrong[0] > 1.2 * nothing[0]
    gains = [n - t for n, t in zip(nothing, told)]
    assert (
        gains[0] > gains[1] > 0.05 + abs(gains[2]) and max(nothing[3], told[3]) < 1e-4
    )  # and with all 12 numbers nothing is left to say


def test_the_table_is_the_modules(tmp_path, monkeypatch):
    files.save(tmp_path / "clip.wav", WAV[0], SR)
    (rung,) = [r for r in rungs.phase_rungs(None) if r.name.startswith("the lowest 80")]
    theirs, sound = report.score_rung(rung, Item(tmp_path / "clip.wav"))
    kept = files.load(tmp_path / "clip.wav", SR, mono=True)[0]
    row, mine = HAND["score"](rung.name, rung.family, lambda wav: HAND["lowest"](wav, 80), kept[None])
    assert row.scores == pytest.approx(theirs.scores, abs=1e-4) and torch.allclose(mine, sound, atol=1e-6)
    assert (row.floats, row.bits, row.parameters) == (theirs.floats, None, 0) and row.rtf > 0
    rows = [row]
    monkeypatch.setitem(HAND, "rows", rows)
    monkeypatch.setitem(HAND, "clips", [WAV, 0.5 * WAV])
    for keep in (40, 20):
        HAND["climb"]("mine", "yours", lambda wav, keep=keep: HAND["lowest"](wav, keep), quiet=True)
    assert [r.rung for r in rows] == [rung.name, "mine", "mine"], "a rung that is climbed again takes its old place"
    assert HAND["line_of"]("mine")["floats"] == 1_000 and HAND["kbits_of"](HAND["line_of"]("mine")) == 16


# --- the sliders, moved from code, with networks that have learnt nothing


def explorer(name: str, monkeypatch):
    """Run the notebook's cell that shows the sliders of function `name` -> its controls, what it displayed."""
    torch.manual_seed(0)
    space, places, cell = definitions("08"), catch_displays(monkeypatch, widgets), slider_cell("08", name)
    p = preset("ladder")
    voice, coder, fix, trained = (
        rungs.ROLES[role](getattr(p, role)).eval() for role in ("vocoder", "vae", "refinement", "autoencoder")
    )
    torch.nn.init.normal_(fix.out.weight, std=0.1)
    torch.nn.init.normal_(trained.decoder[-1].weight, std=0.1)
    with torch.no_grad():
        mel = LogMel(MEL)(WAV, SR)
        mean, logvar = coder.encode(mel)
        space |= {
            "wav": WAV,
            "mel": mel,
            "bank": bank_of(MEL),
            "size": griffin.mel_to_magnitude(mel, MEL),
            "course": notebook,
            "voice": voice,
            "coder": coder,
        }
        space |= {
            "mean": mean,
            "logvar": logvar,
            "fix": fix,
            "trained": trained,
            "untrained": autoencoder.Autoencoder(p.autoencoder).eval(),
        }
        space |= {"x": autoencoder.mdct(WAV, 320), "plt": space["plots"].pyplot()}
        exec(cell, space)
    return space["controls"], places


MOVES = [
    ("iterate", {"iterations": 1}),
    ("iterate", {"momentum": 0.0}),
    ("with_error", {"degrees": 180}),
    ("levels", {"kind": "log"}),
    ("levels", {"bits": 1}),
    ("draw_from", {"noise_times": 8.0}),
    ("sharpen", {"amount": 0.8}),
    ("sharpen", {"refine": False}),
    ("at", {"kbits": 1}),
    ("at", {"learnt": False}),
]


@pytest.mark.parametrize("name, values", MOVES, ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_moving_a_slider_changes_the_sound(name, values, monkeypatch):
    controls, places = explorer(name, monkeypatch)
    with torch.no_grad():
        move(controls, places, values)


def test_more_bits_lower_the_water(monkeypatch):
    controls, places = explorer("allocate", monkeypatch)
    controls["kbits"].value = 64
    titles = [figure.axes[0].get_title(loc="left") for figure in places[0].items]
    shares = [int(title.split(": ")[1].split("%")[0]) for title in titles]
    assert shares[1] > shares[0]
