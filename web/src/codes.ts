/** The tab for codebooks: the codec turns sound into codes, which can be muted, swapped and changed, and heard. */
import { decoded } from "./decode";
import { explain } from "./errors";
import type { Facts } from "./facts";
import { context2d, draw, element, save, say, scale } from "./page";
import { transport } from "./transport";
import type { Wav } from "./wav";
import type { FromWorker, ToWorker } from "./worker";

const SILENT = -1; // a code that says nothing

interface Selection {
  row: number;
  from: number; // frames
  to: number;
}

export function codesTab(): void {
  const panel = element("panel-codes");
  const raster = element<HTMLCanvasElement>("raster");
  const field = element<HTMLInputElement>("code");
  const controls = transport("codes-", panel);
  let worker: Worker | null = null;
  let job = 0;
  let name = "";
  let facts: Facts | null = null;
  let original: Wav | null = null;
  let made: Wav | null = null;
  let first: Int32Array = new Int32Array(0); // codes as the encoder gave them, row by row
  let own: Int32Array = first; // with what was changed since
  let speaks: number[] = []; // for each row the one whose codes it takes, or SILENT
  let count = 0; // frames
  let at: Selection = { row: 0, from: 0, to: 0 };
  let hearFrom: number | null = null; // seconds, once the codes have become sound

  function ask(message: ToWorker): void {
    if (!worker) {
      worker = new Worker("worker.js", { type: "module" });
      worker.onmessage = ({ data }: MessageEvent<FromWorker>) => answer(data);
      worker.onerror = () => say("codes-message", "The codec stopped by itself. Reload the page and try again.");
    }
    worker.postMessage(message);
  }

  const spoken = (row: number, frame: number): number =>
    speaks[row] === SILENT ? SILENT : own[speaks[row] * count + frame];

  /** What a code looks like: its first two numbers choose the colour, the third how bright it is. */
  function colour(code: number): [number, number, number] {
    if (code === SILENT || !facts) return [16, 18, 30];
    const [a, b, c] = facts.levels;
    const hue = ((code % a) + (Math.floor(code / a) % b) / b) / a;
    const light = 0.35 + (0.4 * (Math.floor(code / (a * b)) % c)) / c;
    return [0, 1, 2].map((k) => {
      const wave = Math.abs(((hue * 6 + 4 - 2 * k) % 6) - 3) - 1; // of red, green and blue around the circle
      return 255 * (light + 0.45 * (Math.min(1, Math.max(0, wave)) - 0.5));
    }) as [number, number, number];
  }

  function show(): void {
    if (!facts) return;
    const rows = facts.codebooks;
    const image = new ImageData(count, rows);
    for (let row = 0; row < rows; row++) {
      for (let t = 0; t < count; t++) image.data.set([...colour(spoken(row, t)), 255], 4 * (row * count + t));
    }
    raster.width = count;
    raster.height = rows;
    context2d(raster).putImageData(image, 0, 0);
    const mark = element("selection").style;
    mark.left = `${(100 * at.from) / count}%`;
    mark.width = `${(100 * (at.to - at.from + 1)) / count}%`;
    mark.top = `${(100 * at.row) / rows}%`;
    mark.height = `${100 / rows}%`;
    const code = spoken(at.row, at.from);
    const when = (at.from * facts.hop) / facts.sr;
    const many = at.to > at.from ? ` and ${at.to - at.from} more` : "";
    element("selected").textContent =
      `Codebook ${at.row + 1} at ${when.toFixed(2)} s: ${code === SILENT ? "says nothing" : `code ${code}`}${many}`;
    field.value = code === SILENT ? "" : String(code);
  }

  /** The codes have changed: make sound of them, and play it from `seconds` on. */
  function changed(seconds: number | null): void {
    show();
    hearFrom = seconds;
    job++;
    say("codes-message", "");
    say("codes-status", "Decoding");
    const rows = speaks.length;
    const codes = new Int32Array(rows * count).map((_, i) => spoken(Math.floor(i / count), i % count));
    ask({ kind: "decode", job, codes });
  }

  function put(code: number): void {
    if (speaks[at.row] === SILENT) return say("codes-message", "This codebook says nothing. Choose its own codes first.");
    if (!facts) return;
    const row = speaks[at.row] * count;
    own.fill(code, row + at.from, row + at.to + 1);
    changed(Math.max(0, (at.from * facts.hop) / facts.sr - 0.3));
  }

  async function open(file: File): Promise<void> {
    const mine = ++job;
    say("codes-message", "");
    say("codes-status", `Opening ${file.name}`);
    try {
      const wav = await decoded(file);
      if (mine !== job) return;
      name = file.name;
      say("codes-status", "Encoding");
      ask({ kind: "encode", job, wav });
    } catch (error) {
      say("codes-status", "");
      say("codes-message", explain(error));
    }
  }

  function answer(data: FromWorker): void {
    if (!("job" in data) || data.job !== job) return;
    if (data.kind === "error") {
      say("codes-status", "");
      say("codes-message", data.sentence);
    } else if (data.kind === "encoded") {
      [facts, original, made] = [data.facts, data.wav, null];
      [first, own] = [data.codes, data.codes.slice()];
      count = first.length / facts.codebooks;
      at = { row: 0, from: 0, to: 0 };
      controls.load(original, null);
      draw(element<HTMLCanvasElement>("codes-before"), data.picture);
      for (const id of ["scale-codes-before", "scale-codes-after"]) scale(element(id), facts.sr);
      const entries = facts.levels.reduce((a, b) => a * b, 1);
      const rate = facts.sr / facts.hop;
      const bits = (facts.codebooks * Math.log2(entries) * rate) / 1000;
      field.max = String(entries - 1);
      element("codes-about").textContent =
        `${name}: ${facts.codebooks} codebooks of ${entries.toLocaleString("en")} entries, ` +
        `${rate} times a second: ${bits.toFixed(1)} kbit/s`;
      choices(facts.codebooks);
      element("codes-open").hidden = false;
      changed(null);
    } else if (data.kind === "decoded" && original) {
      made = data.wav;
      controls.load(original, made);
      controls.choose("after");
      draw(element<HTMLCanvasElement>("codes-after"), data.picture);
      element<HTMLButtonElement>("codes-save").disabled = false;
      say("codes-status", "");
      if (hearFrom !== null) controls.playFrom(hearFrom);
    }
  }

  /** For each codebook: whose codes it takes. */
  function choices(rows: number): void {
    speaks = Array.from({ length: rows }, (_, row) => row);
    element("codebooks").replaceChildren(
      ...speaks.map((row) => {
        const label = document.createElement("label");
        const select = document.createElement("select");
        select.append(
          ...speaks.map((other) => new Option(other === row ? "its own codes" : `codes of ${other + 1}`, String(other))),
          new Option("nothing", String(SILENT)),
        );
        select.value = String(row);
        select.addEventListener("change", () => {
          speaks[row] = Number(select.value);
          changed(0);
        });
        label.append(`Codebook ${row + 1} says `, select);
        return label;
      }),
    );
  }

  const chooser = element<HTMLInputElement>("codes-file");
  chooser.addEventListener("change", () => {
    if (chooser.files?.[0]) void open(chooser.files[0]);
    chooser.value = "";
  });
  document.addEventListener("drop", (event) => {
    const file = event.dataTransfer?.files[0];
    if (file && !panel.hidden) void open(file);
  });

  let anchor = 0; // frame where a selection began
  const frameOf = (event: PointerEvent): number =>
    Math.min(count - 1, Math.max(0, Math.floor((event.offsetX / raster.clientWidth) * count)));
  raster.addEventListener("pointerdown", (event) => {
    raster.setPointerCapture(event.pointerId);
    anchor = frameOf(event);
    const row = Math.floor((event.offsetY / raster.clientHeight) * speaks.length);
    at = { row: Math.min(speaks.length - 1, Math.max(0, row)), from: anchor, to: anchor };
    show();
  });
  raster.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    const frame = frameOf(event);
    at = { row: at.row, from: Math.min(anchor, frame), to: Math.max(anchor, frame) };
    show();
  });
  raster.addEventListener("keydown", (event) => {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (!dx && !dy) return;
    event.preventDefault();
    const kept = (x: number, end: number): number => Math.min(end - 1, Math.max(0, x));
    const to = kept(at.to + dx, count);
    const from = event.shiftKey ? Math.min(at.from, to) : kept(at.from + dx, count);
    at = { row: kept(at.row + dy, speaks.length), from, to: event.shiftKey ? to : from };
    show();
  });
  field.addEventListener("change", () => {
    const code = Math.round(Number(field.value));
    if (field.value !== "" && code >= 0 && code <= Number(field.max)) put(code);
    else say("codes-message", `A code is a whole number from 0 to ${field.max}. Type one.`);
  });
  element("mute").addEventListener("click", () => put(SILENT));
  element("back").addEventListener("click", () => {
    if (!facts) return;
    own = first.slice();
    choices(facts.codebooks);
    changed(0);
  });
  element("codes-save").addEventListener("click", () => {
    if (made) save(made, `${name.replace(/\.[^.]*$/, "")}.codes.wav`);
  });
}
