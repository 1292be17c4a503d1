"""The page of `wavelldm app`: tabs over `studio`, made with Gradio.

It asks for nothing outside: no fonts, no analytics, and a Content-Security-Policy that would stop a request.
"""

import io
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch

from .. import plots
from ..denoise import denoiser
from ..denoise.denoiser import MODELS, TRAINING
from ..errors import WavelldmError
from ..metrics.scores import measure
from .studio import EDITS, LONGEST, SOUNDS, Outcome, Studio, kept, place_of, shipped_codec, shipped_prior, table_html

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")

try:
    import gradio as gr
except ImportError:
    raise WavelldmError("the page needs the package 'gradio'; install it with: pip install 'wavelldm[app]'") from None

PAGES = Path(__file__).parent / "pages"
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; base-uri 'self'"
WAITING = 12  # requests that may wait; more are told to come back
SIZE = 64_000_000  # bytes of a file
BODY = 1_000_000  # bytes of any other request
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
ABOUT = {
    "denoise": "Noise goes, speech stays. Record something or drop a file.",
    "restore": "Lost stretches and clipped peaks are found and filled. Or click on the waveform twice to mark a gap.",
    "codec": "Speech as a few hundred numbers a second. Keep fewer codebooks, or change codes, and hear it.",
    "refine": "A diffusion prior of clean speech goes over what a denoiser made. It takes longer than the others.",
    "compare": "Several denoisers on one recording, in step.",
    "words": "Say what is to be heard. The model knows some twenty kinds of sounds, alone, together or one after the "
    "other, and names the words that it has never met.",
}
TITLES = {"words": "Text to audio"}  # of the tabs whose name is not their title
EXAMPLES = (
    "two low beeps, then rain",
    "a dog barking far away",
    "a high siren with wind",
    "fast loud knocking",
)

logger = logging.getLogger("wavelldm")


class Policy:
    """Adds the Content-Security-Policy to every answer; takes no body that is too long or of a hidden length (ASGI)."""

    def __init__(self, app: Callable):
        self.app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        async def sending(message: dict) -> None:
            if message["type"] == "http.response.start":
                own = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        if scope["type"] == "http" and (refusal := refused(scope["path"], dict(scope["headers"]))):
            status, sentence = refusal
            head = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
            await sending({"type": "http.response.start", "status": status, "headers": head})
            await sending({"type": "http.response.body", "body": sentence.encode()})
        else:
            await self.app(scope, receive, sending)


def refused(path: str, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
    """HTTP status and a sentence for a body that is not taken."""
    if b"transfer-encoding" in headers:
        return 411, "say how long the request is"
    most = SIZE + BODY if path.endswith("/upload") else BODY  # a file, with what stands around it
    if int(headers.get(b"content-length", b"0")) > most:
        return 413, f"a request may have {most / 1e6:.0f} MB"
    return None


def address(path: Path) -> str:
    return f"gradio_api/file={quote(str(path))}"


def players(outcome: Outcome) -> str:
    """All versions, which play in step: one is heard, a click changes which. pages/studio.js moves it."""
    names = list(outcome.versions)
    sounds = "".join(f'<i class="sound" data-src="{address(path)}"></i>' for path in outcome.versions.values())
    picks = "".join(f'<button type="button" class="pick">{escape(name)}</button>' for name in names)
    keep = f'<a class="save" download href="{address(outcome.versions[names[-1]])}">Save {escape(names[-1])}</a>'
    bar = '<input type="range" min="0" max="1000" value="0" aria-label="Place">'
    play = '<button type="button" class="play" aria-label="Play"></button>'
    lines = f'<div class="line">{play}{bar}</div><div class="line picks">{picks}{keep}</div>'
    return f'<div class="step">{sounds}{lines}</div>'


def told(error: Exception, source: object = None) -> str:
    """What a listener reads: a module's own sentence, without the path that a file has here."""
    if not isinstance(error, WavelldmError):
        logger.exception("a fault of the program")
        return "Something went wrong in the program. Try another recording."
    text = str(error)
    for path in [source] if isinstance(source, str) and os.path.isabs(source) else []:
        text = text.replace(path, Path(path).name)
    return escape(text[:1].upper() + text[1:] + ("" if text.endswith(".") else "."))


def shown(work: Callable[..., Outcome]) -> Callable[..., tuple]:
    """What a button calls: players, picture, table and notes of an outcome, or an error as a sentence."""

    def run(source: str | None, *choices: object) -> tuple:
        try:
            outcome = work(source, *choices)
        except Exception as error:
            raise gr.Error(told(error, source), duration=30, print_exception=False, title="That did not work") from None
        notes = "".join(f"<p>{escape(note)}</p>" for note in outcome.notes)
        picture = str(outcome.picture) if outcome.picture else None
        return players(outcome), table_html(outcome.table) + f'<div class="notes">{notes}</div>', picture

    return run


def sound(label: str = "Recording") -> gr.Audio:
    return gr.Audio(sources=["upload", "microphone"], type="filepath", label=label, buttons=[], editable=False)


def results(name: str) -> list:
    return [
        gr.HTML(elem_id=f"{name}-players", elem_classes="empty-ok"),
        gr.HTML(elem_id=f"{name}-notes", elem_classes="empty-ok"),
        gr.Image(label="Spectrograms", show_label=False, interactive=False, type="filepath", format="png", buttons=[]),
    ]


def models_text() -> str:
    return "\n".join(f"* **{name}**: {text}" for name, text in TRAINING.items())


def tab(name: str, build: Callable) -> None:
    """One tab: what is given on the left, what comes out on the right."""
    with gr.Tab(TITLES.get(name, name.capitalize()), id=name):
        gr.Markdown(f"{ABOUT[name]} Up to {LONGEST[name]:.0f} s.")
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                inputs, work = build()
                button = gr.Button("Go", variant="primary", elem_id=f"{name}-go")
            with gr.Column(scale=6, min_width=300):
                out = results(name)
        button.click(shown(work), inputs, out, concurrency_id="work", api_visibility="private")


def clean_reference() -> gr.Audio:
    with gr.Accordion("Clean reference, for scores", open=False):
        return sound("Clean reference")


def page(folder: str | Path) -> gr.Blocks:
    """All tabs. `folder`: where results are kept."""
    studio = Studio(folder)

    def denoise() -> tuple:
        source = sound()
        model = gr.Dropdown(list(MODELS), value="studio16k", label="Model")
        with gr.Accordion("What each model is", open=False):
            gr.Markdown(models_text())
        strength = gr.Slider(0, 2, 1, step=0.1, label="Strength")
        background = gr.Slider(0, 1, 0, step=0.05, label="Background kept")
        restore = gr.Checkbox(False, label="Restore what is damaged, too")
        return [source, model, strength, background, restore, clean_reference()], studio.denoise

    def restore() -> tuple:
        source = sound()
        wave = gr.Image(
            label="Waveform",
            show_label=False, interactive=False, type="filepath", format="png",
            buttons=[], elem_id="wave",
        )  # fmt: skip
        places = gr.Textbox(label="Gaps in seconds (nothing: they are looked for)", placeholder="1.20-1.45, 3.0-3.2")
        silence = gr.Checkbox(False, label="Lose these places first, to try it on a whole recording")
        steps = gr.Radio(
            [("straight lines", 0), ("what is expected", 1), ("drawn, 8 steps", 8)], value=1, label="Filled by"
        )
        half = gr.State(None)

        def draw(path: str | None) -> tuple:
            try:
                drawn = studio.waveform(path)
            except Exception as error:
                raise gr.Error(told(error, path), print_exception=False, title="That did not work") from None
            return (str(drawn) if drawn else None), None

        source.change(draw, source, [wave, half], api_visibility="private")
        wave.select(mark, [source, places, half], [places, half], api_visibility="private")
        return [source, places, steps, silence], studio.restore

    def codec() -> tuple:
        source = sound()
        books = gr.Radio([1, 2, 3, 4], value=4, label="Codebooks kept")
        with gr.Accordion("Change codes", open=False):
            edit = gr.Dropdown(list(EDITS), value=EDITS[0], label="Codes become")
            book = gr.Radio([1, 2, 3, 4], value=1, label="Of codebook")
            with gr.Row():
                start = gr.Number(0.0, label="From, s", minimum=0, step=0.1)
                end = gr.Number(1.0, label="To, s", minimum=0, step=0.1)
            code = gr.Number(0, label="The one code", minimum=0, precision=0)
        return [source, books, edit, book, start, end, code], studio.codec

    def refine() -> tuple:
        source = sound()
        first = gr.Dropdown(list(MODELS), value="segan", label="Denoiser that goes first")
        steps = gr.Slider(1, 60, 10, step=1, label="Steps")
        return [source, first, steps, clean_reference()], studio.refine

    def compare() -> tuple:
        source = sound()
        models = gr.CheckboxGroup(list(MODELS), value=["studio16k", "base16k", "logmmse"], label="Models")
        return [source, models, clean_reference()], studio.compare

    def words() -> tuple:
        text = gr.Textbox(EXAMPLES[0], label="What is to be heard", lines=2, max_length=300, elem_id="words-text")
        gr.Examples([[words] for words in EXAMPLES], text, label="For example", api_visibility="private")
        seconds = gr.Slider(1, LONGEST["words"], 4, step=0.5, label="Seconds")
        guidance = gr.Slider(0, 10, 3.5, step=0.5, label="Guidance", info="How strictly to follow the words")
        steps = gr.Slider(5, 100, 50, step=5, label="Steps")
        with gr.Row():
            seed = gr.Number(0, label="Seed", minimum=0, precision=0)
            negative = gr.Textbox("", label="What not to hear", max_length=300, placeholder="a siren")
        return [text, seconds, guidance, steps, seed, negative], studio.words

    with gr.Blocks(title="wavelldm", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.HTML('<header class="top"><h1>wavelldm</h1><p>Latent diffusion for audio. All of it runs on this '
                "computer.</p></header>")  # fmt: skip
        with gr.Tabs():
            for build in (denoise, restore, codec, refine, compare, words):
                tab(build.__name__, build)
    blocks.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return blocks


def warm() -> None:
    """Load what first results need, while somebody looks for a file: networks, judges, what draws."""
    denoiser.load("best")
    drawn = plots.compare({"": torch.zeros(1, 16_000)}, 16_000)
    drawn.savefig(io.BytesIO())
    plots.pyplot().close(drawn)
    shipped_codec()
    shipped_prior()
    kept(SOUNDS, "cpu")
    with suppress(WavelldmError):  # a package that is missing is said where it is needed
        measure(np.ones(16_000), np.ones(16_000), 16_000, ["dnsmos_ovrl"])


def mark(source: str | None, places: str, half: float | None, event: gr.SelectData) -> tuple:
    """Two clicks on the waveform make a gap."""
    from ..audio import files

    if not source or not event.index:
        return places, None
    at = place_of(event.index[0], 1100, files.info(source).seconds)  # the picture is 10 inches wide, 110 dots each
    if half is None:
        return places, at
    if at == half:
        return places, None
    return ", ".join(
        [*([places.strip(" ,")] if places.strip(" ,") else []), f"{min(half, at):.2f}-{max(half, at):.2f}"]
    ), None


def theme() -> gr.themes.Base:
    return gr.themes.Soft(
        primary_hue=gr.themes.colors.rose, neutral_hue=gr.themes.colors.slate, font=FONT, font_mono=["monospace"]
    )


def launch(
    host: str = "127.0.0.1", port: int = 7860, folder: str | Path | None = None, block: bool = True
) -> gr.Blocks:
    """Serve the page until Ctrl-C."""
    kept = tempfile.TemporaryDirectory(prefix="wavelldm-app-") if folder is None else None
    place = Path(folder or kept.name)
    blocks = page(place)
    from starlette.middleware import Middleware

    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            inbrowser=False,
            prevent_thread_lock=True,
            show_error=False,
            ssr_mode=False,
            allowed_paths=[str(place)],
            max_file_size=SIZE,
            footer_links=[],
            app_kwargs={"middleware": [Middleware(Policy)]},
            theme=theme(),
            css=(PAGES / "studio.css").read_text(encoding="utf-8"),
            head=f"<script>{(PAGES / 'studio.js').read_text(encoding='utf-8')}</script>",
        )
    except OSError:
        raise WavelldmError(f"port {port} is in use or not allowed; choose another with --port") from None
    threading.Thread(target=warm, daemon=True).start()
    try:
        if block:
            print(f"{blocks.local_url}\nCtrl-C ends it", flush=True)
            blocks.block_thread()
    finally:
        if block:
            blocks.close(verbose=False)
            if kept:
                kept.cleanup()
    blocks.kept = kept  # the folder lives as long as the page
    return blocks
