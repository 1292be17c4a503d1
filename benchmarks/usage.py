"""Why the codec does not use all entries of its codebooks: counted in speech and in pauses; into README.md.

python benchmarks/usage.py [--manifest TABLE]
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from report import line, made_by, source, write_section
from torch import Tensor
from tqdm import tqdm

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.codec.fsq import code_to_digits, digits_to_code
from wavelldm.codec.model import Codec
from wavelldm.data import corpora, voices

SR, PAUSE = 16_000, -25.0  # dB below the mean power of a recording: quieter frames are pauses


def used(codes: Tensor, entries: int) -> tuple[float, float]:
    """(T,) -> share of the entries that occur, perplexity."""
    p = torch.bincount(codes, minlength=entries).float() / len(codes)
    p = p[p > 0]
    return len(p) / entries, float((-(p * p.log()).sum()).exp())


def independent(codes: Tensor, levels: tuple) -> Tensor:
    """The same numbers as often as before, each drawn without regard to the others of its code."""
    digits, generator = code_to_digits(codes, levels), torch.Generator().manual_seed(0)  # (T, d)
    columns = [column[torch.randperm(len(column), generator=generator)] for column in digits.T]
    return digits_to_code(torch.stack(columns, dim=1), levels)


@torch.no_grad()
def coded(codec: Codec, items: list) -> tuple[Tensor, Tensor]:
    """All held-out speech -> codes (Q, T), level of each frame against its recording in dB (T,)."""
    codes, levels = [], []
    for item in tqdm(items, "encoding", delay=2, leave=False):
        wav = files.load(item.path, SR, mono=True)[0]  # (1, N)
        found = codec.quantise(codec.encode(wav[None], SR))[1][0]
        whole = F.pad(wav[0], (0, found.shape[1] * codec.hop - wav.shape[1])).reshape(-1, codec.hop)
        codes.append(found)
        levels.append(10 * torch.log10((whole.square().mean(1) + 1e-9) / (wav.square().mean() + 1e-9)))
    return torch.cat(codes, dim=1), torch.cat(levels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", help="a manifest.tsv with speech (default: the embedded corpus)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    codec = weights.load("voice16k", Codec)
    (items,) = corpora.read_manifest(args.manifest or voices.build_corpus(), "valid", ("speech",))
    codes, level = coded(codec, items)
    pause, levels, entries = level < PAUSE, codec.config.levels, codec.quantiser.entries
    table = [["codebook", "all frames", "speech", "pauses", "if its numbers were independent", "bits of each number"]]
    table += [["---:"] * len(table[0])]
    for q, book in enumerate(codes):
        sets = book, book[~pause], book[pause], independent(book, levels)
        shares = [f"{100 * share:.0f} %, {perplexity:,.0f}" for share, perplexity in (used(x, entries) for x in sets)]
        digits = code_to_digits(book, levels)
        bits = [np.log2(used(column, size)[1]) for column, size in zip(digits.T, levels)]
        table.append([str(q + 1), *shares, " ".join(f"{b:.2f}" for b in bits)])
    most = " ".join(f"{np.log2(size):.2f}" for size in levels)
    text = f"""## Entries of the codebooks

{codes.shape[1]:,} frames of all held-out speech of {source(args.manifest)}, the encoder's codes: the share of the
{entries:,} entries that occur, and their perplexity. Pauses: the {100 * float(pause.float().mean()):.0f} % of the
frames that lie {-PAUSE:.0f} dB or more under the power of their recording. "If its numbers were independent": each of
the {len(levels)} numbers of a code as often as it is, but drawn alone. Each number carries nearly the bits that it has
levels for ({most}). So entries stay unused because the numbers of one code depend on each other, most of all in the
first codebook, and because pauses sound alike.

{chr(10).join(map(line, table))}

{made_by("usage.py", args.manifest)}."""
    print(text)
    write_section("usage", text)


if __name__ == "__main__":
    main()
