"""One widget to look at codes, hear them, and change them: notebook 07 shows it.

A click on the picture needs no extension: the picture is an HTML widget whose handler writes the place into a text
field that the kernel watches. Whoever cannot click types frame and codebook into the fields below the picture.
"""

import base64
import io
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ipywidgets
import numpy as np
import torch
from IPython.display import display
from matplotlib.figure import Figure
from torch import Tensor

from ..audio import files
from ..codec.fsq import code_to_digits, digits_to_code
from ..codec.model import Codec
from ..errors import WavelldmError
from ..plots import ACCENT, INK, SOFT, pyplot, spectrogram
from .notebook import player

AS_IT_IS = "as it is"
HELD = 0.6  # seconds for which one frame is held
AROUND = 0.12  # seconds to both sides of a frame of the gallery
DPI = 80


@dataclass
class Recording:
    """A sound, its codes, the place of each frame on the map, and the phoneme of each frame."""

    wav: Tensor  # (1, N)
    codes: Tensor  # (Q, T)
    places: Tensor  # (T, 2)
    phonemes: list[str]  # T


def set_digits(
    codes: Tensor, levels: Sequence[int], codebooks: Sequence[int], values: Sequence[int | None], start: int, stop: int
) -> Tensor:
    """codes (Q, T) with digits of some codebooks set to `values` (None: as they are) in frames start to stop."""
    out = codes.clone()
    for q in codebooks:
        digits = code_to_digits(codes[q, start:stop], levels)  # (t, d)
        for k, value in enumerate(values):
            if value is not None:
                if not 0 <= value < levels[k]:
                    raise WavelldmError(f"digit {k + 1} goes from 0 to {levels[k] - 1}, not {value}")
                digits[:, k] = value
        out[q, start:stop] = digits_to_code(digits, levels)
    return out


def transplant(codes: Tensor, other: Tensor, codebooks: Sequence[int], start: int, stop: int) -> Tensor:
    """codes (Q, T) with some codebooks taken from the same frames of `other`, as far as that one lasts."""
    stop, out = min(stop, other.shape[-1]), codes.clone()
    for q in codebooks:
        out[q, start:stop] = other[q, start:stop]
    return out


def same_code(recordings: Sequence[Recording], code: int, codebook: int, most: int = 8) -> tuple[list, int]:
    """Where recordings use a code: [(recording, frame), ...] spread over them, and how often in all."""
    found = [(i, t) for i, r in enumerate(recordings) for t in (r.codes[codebook] == code).nonzero()[:, 0].tolist()]
    step = max(1, len(found) // most)
    return found[::step][:most], len(found)


def _tag(wav: Tensor, sr: int, more: str = "") -> str:
    data = base64.b64encode(player(wav, sr).data).decode()
    return f'<audio controls {more} style="height:2em" src="data:audio/flac;base64,{data}"></audio>'


# The place of a click, as shares of width and height, goes into the text field of this widget.
CLICK = (
    "const r=this.getBoundingClientRect(),f=document.querySelector('.NAME input');"
    "f.value=[(event.clientX-r.left)/r.width,(event.clientY-r.top)/r.height,Date.now()].join(' ');"
    "f.dispatchEvent(new Event('input',{bubbles:true}));f.dispatchEvent(new Event('change',{bubbles:true}));"
)
# One key goes over from one player to the other, at the same place of the sound.
SWITCH = (
    "if(event.type==='keydown'&&event.key!=='x')return;event.preventDefault();event.stopPropagation();"
    "const d=this.closest('.ab'),[a,b]=d.querySelectorAll('audio');d.focus();"
    "const from=b.paused?a:b,to=b.paused?b:a;"
    "if(a.paused&&b.paused){a.play();return}"
    "to.currentTime=from.currentTime;from.pause();to.play();"
)


class Explorer:
    """Codes of some recordings, to hear and to change. `corpus` is where other uses of a code are looked for."""

    def __init__(self, codec: Codec, recordings: dict[str, Recording], corpus: Sequence[Recording], out: Path):
        self.codec, self.recordings, self.corpus, self.out = codec, recordings, list(corpus), Path(out)
        self.levels, self.rate, self.sr = codec.config.levels, codec.config.latent_rate, codec.sr
        self.edited = {name: r.codes.clone() for name, r in recordings.items()}
        self.before: list[tuple[str, Tensor]] = []  # what undo brings back
        self.sounds: dict[str, Tensor] = {}  # by what they are: held, original, edited; the last ones that were made
        self.chosen = (next(iter(recordings)), 0)  # a recording or the number of one in the corpus, and a frame
        self._axes: dict = {}
        self._build()
        self._new_recording()

    # --- what is heard

    @torch.no_grad()
    def decode(self, codes: Tensor, length: int | None = None) -> Tensor:
        """codes (Q, T) -> wav (1, N)."""
        return self.codec.codes_to_wav(codes[None], length)[0]

    @property
    def name(self) -> str:
        return self.recording.value

    def _of(self, source: str | int) -> tuple[Recording, Tensor]:
        """A recording, by its name or its number in the corpus, and its codes as they are now."""
        if isinstance(source, int):
            return self.corpus[source], self.corpus[source].codes
        return self.recordings[source], self.edited[source]

    def select(self, source: str | int, frame: int, codebook: int | None = None) -> None:
        """Hear one frame, held, and the sounds of the corpus that use its code in the chosen codebook."""
        recording, codes = self._of(source)
        if not 0 <= frame < codes.shape[-1]:
            raise WavelldmError(f"there are frames 0 to {codes.shape[-1] - 1}, not {frame}")
        self.chosen = (source, frame)
        if codebook is not None:
            self.codebook.value = codebook + 1
        q = self.codebook.value - 1
        held = codes[:, frame : frame + 1].repeat(1, round(HELD * self.rate))  # (Q, frames)
        self.sounds["held"] = self.decode(held)
        code, digits = int(codes[q, frame]), code_to_digits(codes[q, frame], self.levels).tolist()
        places, count = same_code(self.corpus, code, q)
        total = sum(r.codes.shape[-1] for r in self.corpus)
        place = source if isinstance(source, str) else f"sentence {source + 1} of the corpus"
        sound = recording.phonemes[frame] or "pause"
        self.heard.value = (
            f"<b>{place}, frame {frame}, {frame / self.rate:.2f} s, [{sound}]</b>, held: "
            f"{_tag(self.sounds['held'], self.sr, 'autoplay')}<br>codebook {q + 1}: code {code}, digits {digits}; "
            f"{count} of {total:,} frames of the corpus have this code"
        )
        self.gallery.value = "".join(self._piece(i, t) for i, t in places)
        self._paint()

    def _piece(self, i: int, frame: int) -> str:
        r, side = self.corpus[i], round(AROUND * self.sr)
        middle = round((frame + 0.5) * self.sr / self.rate)
        sound = r.wav[:, max(0, middle - side) : middle + side]
        label = f"[{r.phonemes[frame] or 'pause'}] sentence {i + 1}, {frame / self.rate:.2f} s"
        return f'<div style="display:inline-block;margin:2px 8px">{label}<br>{_tag(sound, self.sr)}</div>'

    # --- what is changed

    def _change(self, codes: Tensor) -> None:
        self.before.append((self.name, self.edited[self.name]))
        self.edited[self.name] = codes
        self._play()

    def _part(self) -> tuple[list[int], int, int]:
        start, last = self.frames.value
        return [q - 1 for q in self.codebooks.value], start, last + 1

    def put(self, *_: object) -> None:
        """Set digits of the chosen codebooks, in the chosen frames."""
        values = [None if field.value == AS_IT_IS else field.value for field in self.digits]
        codebooks, start, stop = self._part()
        self._change(set_digits(self.edited[self.name], self.levels, codebooks, values, start, stop))

    def take(self, *_: object) -> None:
        """Take the chosen codebooks and frames from the other recording, as that one is now."""
        codebooks, start, stop = self._part()
        self._change(transplant(self.edited[self.name], self.edited[self.other.value], codebooks, start, stop))

    def undo(self, *_: object) -> None:
        """Go back by one change, whichever recording it was made to."""
        if self.before:
            name, self.edited[name] = self.before.pop()
            if name == self.name:
                self._play()
            else:
                self.recording.value = name

    def save(self, *_: object) -> None:
        """Write the sound and the codes as they are now."""
        path = self.out / f"{self.name.replace(' ', '_')}.wav"
        files.save(path, self.sounds["edited"], self.sr, force=True)
        np.save(path.with_suffix(".npy"), self.edited[self.name].numpy())
        self.note.value = f"saved: {path} and {path.with_suffix('.npy').name}"

    def _play(self) -> None:
        r, codes = self._of(self.name)
        pair = {"original": r.codes, "edited": codes}
        self.sounds |= {what: self.decode(codes, r.wav.shape[-1]) for what, codes in pair.items()}
        players = "".join(
            f"{label} {_tag(self.sounds[what], self.sr)} " for label, what in (("A", "original"), ("B", "edited"))
        )
        changed = int((r.codes != codes).any(0).sum())
        self.ab.value = (
            f'<div class="ab" tabindex="0" onkeydown="{SWITCH}">{players}<button onclick="{SWITCH}">A/B</button> '
            f"click here, then the key x goes over from one to the other; {changed} of {codes.shape[-1]} frames differ"
            "</div>"
        )
        self.note.value = f"{len(self.before)} changes can be undone"
        self._paint()

    # --- the picture

    def picture(self) -> Figure:
        """Spectrogram with phonemes, codes, digits; and on the right the map, with this recording on it."""
        plt, (r, codes) = pyplot(), self._of(self.name)
        count, seconds = codes.shape[-1], codes.shape[-1] / self.rate
        figure = plt.figure(figsize=(11, 4.6))
        grid = figure.add_gridspec(3, 2, width_ratios=(2.4, 1), height_ratios=(2, 1, 2.4))
        top = figure.add_subplot(grid[0, 0])
        middle, low = (figure.add_subplot(grid[i, 0], sharex=top) for i in (1, 2))
        right = figure.add_subplot(grid[:, 1])
        spectrogram(top, r.wav, self.sr)
        starts = [t for t in range(count) if t == 0 or r.phonemes[t] != r.phonemes[t - 1]]
        for t, end in zip(starts, [*starts[1:], count]):
            top.text((t + end) / 2 / self.rate, 7.4, r.phonemes[t], color="white", ha="center", va="center", fontsize=8)
        colours = torch.rand(self.codec.config.entries, 3, generator=torch.Generator().manual_seed(0))
        digits = code_to_digits(codes, self.levels) / (torch.tensor(self.levels) - 1)  # (Q, T, d), 0 to 1
        for ax, image in ((middle, colours[codes]), (low, digits.movedim(-1, 1).flatten(0, 1))):
            ax.imshow(image.numpy(), aspect="auto", interpolation="nearest", extent=(0, seconds, len(codes), 0))
            ax.set_yticks([q + 0.5 for q in range(len(codes))], [str(q + 1) for q in range(len(codes))])
        middle.set_ylabel("codebook")
        low.set(ylabel="codebook, digit", xlabel="seconds", xlim=(0, seconds))
        right.scatter(*torch.cat([each.places for each in self.corpus]).T, s=2, color="#d5dbe5")
        right.scatter(*r.places.T, s=8, color=INK)
        right.set(title="map: grey the corpus, dark this recording", xticks=[], yticks=[])
        source, t = self.chosen
        right.scatter(*self._of(source)[0].places[t], s=60, facecolors="none", edgecolors=ACCENT, linewidths=2)
        for ax in (top, middle, low) if source == self.name else ():
            ax.axvline((t + 0.5) / self.rate, color=ACCENT, lw=1.2)
        for ax in (middle, low):
            ax.axhspan(self.codebook.value - 1, self.codebook.value, fill=False, edgecolor=SOFT, lw=1.2)
        plt.close(figure)
        self._axes = {"spectrogram": top, "codes": middle, "digits": low, "map": right}
        return figure

    def png(self) -> bytes:
        data, figure = io.BytesIO(), self.picture()
        figure.savefig(data, dpi=DPI)
        return data.getvalue()

    def _paint(self) -> None:
        data = base64.b64encode(self.png()).decode()
        handler = CLICK.replace("NAME", self._name)
        self.image.value = (
            f'<img style="cursor:crosshair;max-width:100%" onclick="{handler}" src="data:image/png;base64,{data}">'
        )

    def click(self, x: float, y: float) -> None:
        """A click at these shares of the picture's width and height, from its upper left corner."""
        for what, ax in self._axes.items():
            pixel = np.array([x, 1 - y]) * ax.figure.bbox.size
            if not ax.bbox.contains(*pixel):
                continue
            at, height = ax.transData.inverted().transform(pixel)
            if what == "map":
                self.select(*self._nearest(torch.tensor([at, height])))
            else:
                frame = min(max(0, int(at * self.rate)), self.edited[self.name].shape[-1] - 1)
                self.select(self.name, frame, None if what == "spectrogram" else int(height))

    def _nearest(self, place: Tensor) -> tuple[str | int, int]:
        """The frame that lies nearest on the map, of this recording or of the corpus."""
        candidates = {self.name: self.recordings[self.name], **dict(enumerate(self.corpus))}
        found = {source: (r.places - place).norm(dim=1).min(0) for source, r in candidates.items()}
        source = min(found, key=lambda each: found[each].values)
        return source, int(found[source].indices)

    # --- the widget

    def _build(self) -> None:
        w, names, count = ipywidgets, list(self.recordings), self.codec.config.codebooks
        self._name = f"click{uuid.uuid4().hex[:8]}"
        self.place = w.Text(layout=w.Layout(display="none"))  # where the picture was clicked
        self.place.add_class(self._name)
        self.recording = w.Dropdown(options=names, description="recording")
        self.frame = w.BoundedIntText(min=0, max=0, description="frame")
        self.codebook = w.BoundedIntText(value=1, min=1, max=count, description="codebook")
        self.hear = w.Button(description="hear this frame")
        self.image, self.heard, self.gallery, self.ab, self.note = (w.HTML() for _ in range(5))
        self.codebooks = w.SelectMultiple(options=range(1, count + 1), value=(1,), rows=count, description="change in")
        self.frames = w.IntRangeSlider(min=0, max=1, description="frames", layout=w.Layout(width="30em"))
        self.digits = [w.Dropdown(options=[AS_IT_IS, *range(n)], layout=w.Layout(width="7em")) for n in self.levels]
        self.other = w.Dropdown(options=names, value=names[-1], description="from")
        buttons = {"set digits": self.put, "transplant": self.take, "undo": self.undo, "save": self.save}
        self.buttons = {label: w.Button(description=label) for label in buttons}
        for label, button in self.buttons.items():
            button.on_click(buttons[label])
        self.hear.on_click(lambda _: self.select(self.name, self.frame.value))
        self.recording.observe(lambda _: self._new_recording(), names="value")
        self.place.observe(lambda change: self._clicked(change["new"]), names="value")
        self.widget = w.VBox(
            [
                w.HBox([self.recording, self.frame, self.codebook, self.hear]),
                self.image,
                self.place,
                self.heard,
                self.gallery,
                w.HBox([self.codebooks, w.VBox([self.frames, w.HBox([w.Label("digits to"), *self.digits])])]),
                w.HBox([self.buttons["set digits"], self.other, *list(self.buttons.values())[1:]]),
                self.ab,
                self.note,
            ]
        )

    def _clicked(self, text: str) -> None:
        if text:
            x, y, _ = (float(part) for part in text.split())
            self.click(x, y)

    def _new_recording(self) -> None:
        last = self.edited[self.name].shape[-1] - 1
        self.frame.max, self.frames.max, self.frames.value = last, last, (0, last)
        self.chosen = (self.name, min(self.frame.value, last))
        self._play()

    def show(self) -> None:
        """The widget; where none can be shown, as in a saved notebook, its picture."""
        data = self.widget._repr_mimebundle_()
        display({**data, "image/png": base64.b64encode(self.png()).decode()}, raw=True)
