"""The ways in which papers measure: which files of a corpus, at which rate, by which metrics.

"voicebank": the 824 test pairs of VoiceBank+DEMAND (Valentini-Botinhao 2017) at 16 kHz, with the columns of SEGAN
(Pascual et al. 2017) and after. "ljspeech": speech rebuilt by a codec or vocoder against LJSpeech (Ito 2017).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..audio.files import sound_files
from ..errors import DataError
from ..paths import data_home
from .folders import Result, columns
from .intervals import interval
from .scores import METRICS

CHAPTERS = ("LJ001-", "LJ002-")  # of LJSpeech, that a named codec is measured on


@dataclass(frozen=True)
class Protocol:
    """Where the clips lie below the folder of a corpus, and what is measured of them. `usual`: the system that is
    measured if none is named; `home`: where `wavelldm data get` puts the corpus."""

    name: str
    title: str
    clean: str
    noisy: str | None
    sr: int
    metrics: tuple[str, ...]
    usual: str
    home: str
    clips: int | None = None  # of the whole test set


PROTOCOLS = {
    "voicebank": Protocol(
        "voicebank",
        "VoiceBank+DEMAND, test set",
        "clean_testset_wav",
        "noisy_testset_wav",
        16_000,
        ("pesq_wb", "csig", "cbak", "covl", "stoi", "si_sdr", "seg_snr"),
        "studio16k",
        "voicebank-demand",
        824,
    ),
    "ljspeech": Protocol(
        "ljspeech",
        "LJSpeech, speech rebuilt",
        "wavs",
        None,
        16_000,
        ("pesq_wb", "stoi", "estoi", "lsd", "mel_distance", "dnsmos_p808", "plcmos"),
        "voice16k",
        "ljspeech/LJSpeech-1.1",
    ),
}


def told_apart(protocol: Protocol, words: Sequence[str]) -> tuple[Path, list[str]]:
    """Words in any order -> the folder of the corpus, which is known by what lies in it, and the systems. Where no word
    is a corpus, the one that `wavelldm data get` has put on this machine."""
    corpora = [word for word in words if (Path(word) / protocol.clean).is_dir()]
    if len(corpora) > 1:
        raise DataError(f"{corpora[0]} and {corpora[1]} are both folders of the corpus; name one")
    home = data_home() / protocol.home
    if not corpora and not home.is_dir():
        lack = f"{' or '.join(words)} is no folder with " if words else "name the folder of the corpus, with "
        wanted = " and ".join(filter(None, (protocol.clean, protocol.noisy)))
        raise DataError(f"{lack}{wanted}; name the one into which the corpus was unpacked")
    systems = [word for word in words if word not in corpora]
    return Path(corpora[0]) if corpora else home, systems


def places(protocol: Protocol, corpus: str | Path) -> tuple[Path, Path | None]:
    """The folders of clean and noisy clips of a corpus as it was unpacked."""
    corpus = Path(corpus)
    if not corpus.is_dir():
        raise DataError(f"{corpus} is not a folder; name the one into which the corpus was unpacked")
    wanted = [name for name in (protocol.clean, protocol.noisy) if name]
    if missing := [name for name in wanted if not (corpus / name).is_dir()]:
        raise DataError(
            f"{corpus} has no folder {' and '.join(missing)}; name the one into which the corpus was unpacked"
        )
    return corpus / protocol.clean, protocol.noisy and corpus / protocol.noisy


def test_clips(protocol: Protocol, corpus: str | Path) -> dict[str, Path]:
    """{name: what a named system is given}: the noisy clips, or the chapters of LJSpeech that are kept for tests."""
    clean, noisy = places(protocol, corpus)
    found = sound_files(noisy or clean)
    if noisy is None:
        found = {name: path for name, path in found.items() if name.startswith(CHAPTERS)}
        if not found:
            raise DataError(f"{clean} has no clip of the chapters LJ001 and LJ002; name a folder of results instead")
    return found


def caveat(protocol: Protocol, clips: int) -> str | None:
    """A sentence, where the row is not the one of papers."""
    if protocol.clips is None or clips == protocol.clips:
        return None
    return f"{clips} clips, and the test set has {protocol.clips}: do not put this row beside those of papers"


def row(protocol: Protocol, result: Result, of: str = "enhanced") -> list[str]:
    """Two lines for each metric of the protocol, as cells 'mean' and 'low..high'."""
    cells = []
    for name in protocol.metrics:
        scores = [(row.enhanced if of == "enhanced" else row.noisy)[name] for row in result.rows]
        mean, low, high = interval(scores)
        cells.append(("-", "") if mean != mean else (f"{mean:.2f}", f"{low:.2f}..{high:.2f}"))
    return cells


def to_table(
    protocol: Protocol,
    results: dict[str, Result],
    mos: dict[str, tuple[float, float, float]] | None = None,
    notes: Iterable[str] = (),
) -> str:
    """The row that papers print, for each system, with 95 % intervals under it. `mos`: of a listening test."""
    first = next(iter(results.values()))
    head = ["system", *(METRICS[name].label for name in protocol.metrics), *(["MOS"] if mos else [])]
    lines = [head]
    named = [("noisy", first, "noisy")] if first.has_noisy else []
    for name, result, of in [*named, *((name, result, "enhanced") for name, result in results.items())]:
        cells = row(protocol, result, of)
        if mos:
            found = mos.get(name)
            cells.append(("-", "") if found is None else (f"{found[0]:.2f}", f"{found[1]:.2f}..{found[2]:.2f}"))
        lines += [[name, *(mean for mean, _ in cells)], ["  95 %", *(reach for _, reach in cells)]]
    others = [
        f"{name}: {len(found.rows)} clips" for name, found in results.items() if len(found.rows) != len(first.rows)
    ]
    said = [text for text in (caveat(protocol, len(first.rows)), *others, *notes) if text]
    title = f"{protocol.title}: {len(first.rows)} clips at {protocol.sr // 1000} kHz; STOI and ESTOI in per cent"
    return "\n".join([title, "", columns(lines), *([""] if said else []), *said])
