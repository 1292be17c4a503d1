"""Training data: corpora as lists of files, and batches of (noisy, clean) crops made from them.

Read `corpora` (readers), `clips` (decoding), `degrade` (noise, rooms, clipping ...), then `loader` (batches).
`noises`, `sentences`, `espeak` and `voices` make the embedded corpus; `download` gets public ones; `pairs` writes
noisy/clean files; `scenes` makes sounds with captions, and `labels` captions for sounds with a label; `examples` are
voices of people that ship.
"""

from .clips import Clips
from .corpora import Corpus, Item, folder, folders, gather, hold_out, paired, read_manifest, room_responses, voicebank
from .degrade import RECIPES, Degradation
from .loader import batches, valid_pairs
from .pairs import write_pairs
from .voices import build_corpus, speak

__all__ = [
    "RECIPES",
    "Clips",
    "Degradation",
    "Item",
    "Corpus",
    "batches",
    "build_corpus",
    "folder",
    "folders",
    "gather",
    "hold_out",
    "paired",
    "read_manifest",
    "room_responses",
    "speak",
    "valid_pairs",
    "voicebank",
    "write_pairs",
]
