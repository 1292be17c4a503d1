"""Two pictures of the whole course: the path of the signal, coloured as far as it is built, and which notebook needs
which."""

from typing import Any

from matplotlib.figure import Figure

from ..errors import WavelldmError
from ..plots import ACCENT, INK, SOFT, pyplot

LAST = 20  # the number of the last notebook

# name -> place (x, y), and the notebooks that build it
BOXES = {
    "speech,\nnoise": ((0, 1), (2,)),
    "spectrum": ((2, 2), (1,)),
    "mask, filter": ((4, 2), (14,)),
    "other cleaners": ((6, 2), (15, 16)),
    "gaps filled": ((8, 2), (12, 13)),
    "mel": ((2, 1), (1,)),
    "encoder": ((4, 1), (4, 6)),
    "codes": ((8, 1), (3, 7)),
    "decoder": ((9.7, 1), (5, 6)),
    "text": ((2, 0), (17,)),
    "schedule,\nsampler": ((4, 0), (9,)),
    "U-Net": ((6, 0), (10,)),
    "training,\nsampling": ((8, 0), (11, 12)),
    "judge": ((11.7, 2), (8, 18)),
    "phone": ((11.7, 1), (19,)),
    "your voice": ((11.7, 0), (20,)),
}
ROWS = [
    ("speech,\nnoise", "spectrum", "mask, filter", "other cleaners", "gaps filled", "judge"),
    ("speech,\nnoise", "mel", "encoder", "codes", "decoder", "phone"),
    ("encoder", "schedule,\nsampler", "U-Net", "training,\nsampling", "codes"),
    ("text", "schedule,\nsampler"),
    ("decoder", "judge"),
    ("decoder", "your voice"),
]
NOTES = {(3.9, 0.5): ("noisy z", "right"), (8.1, 0.5): ("clean z", "left")}  # place -> text, and where it stands


def _box(ax: Any, name: str, number: int) -> None:
    (x, y), notebooks = BOXES[name]
    built, now = min(notebooks) < number, number in notebooks
    face = ACCENT if now else INK if built else "white"
    style = {"boxstyle": "round,pad=0.4", "facecolor": face, "edgecolor": face if face != "white" else SOFT}
    text = f"{name}\n{', '.join(f'{k:02d}' for k in notebooks)}"
    colour = SOFT if face == "white" else "white"
    ax.text(x, y, text, ha="center", va="center", fontsize=7.5, color=colour, bbox=style, zorder=2, linespacing=1.05)


def path(number: int) -> Figure:
    """The path of the signal through the course in notebook `number`: red is what this notebook builds, dark what
    those before it built, and outlined what is still to come. The last line of a cell shows it."""
    if number not in range(LAST + 1):
        raise WavelldmError(f"there is no notebook {number}; choose one from 0 to {LAST}")
    plt = pyplot()
    figure, ax = plt.subplots(figsize=(9, 2.7))
    for start, end in (pair for row in ROWS for pair in zip(row, row[1:])):
        (a, b), (c, d) = BOXES[start][0], BOXES[end][0]
        share = 0.3 if a == c else 0.7 / abs(c - a)  # leaves room for the boxes
        ends = [(a + s * (c - a), b + s * (d - b)) for s in (share, 1 - share)]
        ax.annotate("", ends[1], ends[0], arrowprops={"arrowstyle": "->", "color": SOFT, "lw": 0.8}, zorder=1)
    for name in BOXES:
        _box(ax, name, number)
    for place, (text, side) in NOTES.items():
        ax.text(*place, text, ha=side, va="center", fontsize=7, color=SOFT)
    ax.set(xlim=(-0.6, 12.5), ylim=(-0.45, 2.45))
    ax.set_title("red: this notebook; dark: built before; outlined: still to come", fontsize=8, color=SOFT)
    ax.axis("off")
    plt.close(figure)
    return figure


# notebook -> its subject, those that it builds on, and its height in the picture
NOTEBOOKS = {
    0: ("start here", (), 2),
    1: ("mel", (0,), 2),
    2: ("data, noise", (1,), 3),
    3: ("quantisation", (1,), 2),
    4: ("codec", (1, 3), 2),
    5: ("decoders", (4,), 2),
    6: ("codec training", (4, 5), 2),
    7: ("codes", (3, 4), 3),
    8: ("ladder", (1, 4), 4),
    9: ("diffusion", (), 0),
    10: ("U-Net", (4, 9), 1),
    11: ("latent training", (9, 10), 1),
    12: ("sampling", (9,), -1),
    13: ("where it wins", (9, 12), -1),
    14: ("masks", (1, 4), 5),
    15: ("SEGAN,\nwaveform", (6, 9), 0),
    16: ("refining", (9,), -2),
    17: ("text to audio", (9, 10, 12), -2),
    18: ("evaluation", (0, 1), 4),
    19: ("device", (1, 4, 10), -1),
    20: ("your voice", tuple(range(20)), 2),
}


def behind(number: int) -> set[int]:
    """All notebooks that one builds on, directly or by way of others."""
    return {k for need in NOTEBOOKS[number][1] for k in (need, *behind(need))}


def _depth(number: int) -> int:
    return max((_depth(k) + 1 for k in NOTEBOOKS[number][1]), default=0)


def needs() -> Figure:
    """Which notebook needs which. An arrow that follows from others is left out, and so are those to the last one,
    which needs all."""
    plt = pyplot()
    figure, ax = plt.subplots(figsize=(9, 3.8))
    place = {number: (_depth(number), height) for number, (_, _, height) in NOTEBOOKS.items()}
    style = {"boxstyle": "round,pad=0.35", "facecolor": INK, "edgecolor": INK}
    look = {"ha": "center", "va": "center", "fontsize": 7, "color": "white", "bbox": style}
    boxes = {k: ax.text(*place[k], f"{k:02d}\n{NOTEBOOKS[k][0]}", **look).get_bbox_patch() for k in NOTEBOOKS}
    ax.text(place[LAST][0], 1.3, "needs all", ha="center", fontsize=7, color=SOFT)
    ax.set(xlim=(-0.5, place[LAST][0] + 0.5), ylim=(-2.5, 5.5))
    ax.axis("off")
    figure.draw_without_rendering()  # from here on the sizes of the boxes are known
    for number in range(LAST):
        direct = set(NOTEBOOKS[number][1])
        for need in direct - {k for each in direct for k in behind(each)}:
            ends = {"patchA": boxes[need], "patchB": boxes[number], "shrinkB": 2}
            ax.annotate(
                "", place[number], place[need], arrowprops={"arrowstyle": "->", "color": ACCENT, **ends}, zorder=0
            )
    plt.close(figure)
    return figure
