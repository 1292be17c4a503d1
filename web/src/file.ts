/** The half of the page for recordings: open, clean, compare, save. */
import { decoded } from "./decode";
import { explain, Stopped } from "./errors";
import { clock, draw, element, save, say, scale, sliders } from "./page";
import type { Gap } from "./restore";
import { transport } from "./transport";
import type { FromWorker, ToWorker } from "./worker";
import type { Wav } from "./wav";

const LONGEST = 1; // seconds of a gap

export function fileTab(): void {
  const chooser = element<HTMLInputElement>("file");
  const drop = element("drop");
  const download = element<HTMLButtonElement>("download");
  const bar = element<HTMLProgressElement>("progress");

  let worker: Worker | null = null;
  let job = 0;
  let name = "";
  let wav: Wav | null = null;
  let result: Wav | null = null;
  const ask = (message: ToWorker): void => {
    if (!worker) {
      worker = new Worker(`worker.js${location.search}`, { type: "module" }); // ?threads=2: on two threads
      worker.onmessage = ({ data }: MessageEvent<FromWorker>) => answer(data);
      worker.onerror = () => stop("The cleaning stopped by itself. Reload the page and try again.");
    }
    worker.postMessage(message);
  };
  const panel = element("panel-file");
  const marks = ["gap-from", "gap-to"].map((id) => element<HTMLInputElement>(id));
  const fillButton = element<HTMLButtonElement>("fill");
  const unfill = element<HTMLButtonElement>("unfill");
  const restoreButton = element<HTMLButtonElement>("restore");
  let gaps: Gap[] = []; // that are filled
  let source: Wav | null = null; // what is cleaned: the recording, or the same with its peaks put back
  let plain: Wav | null = null; // cleaned, nothing filled
  const controls = transport("", panel);
  const settings = sliders("file", (final) => final && wav && clean());

  function progress(done: number): void {
    bar.value = done;
    element("percent").textContent = `${Math.round(100 * done)} %`;
  }

  function busy(working: boolean): void {
    element("working").hidden = !working;
    progress(0);
    download.disabled = working || !result;
    unfill.disabled = working || (!gaps.length && source === wav);
    marked();
  }

  /** Shows what is marked as lost. */
  function marked(): void {
    const [from, to] = marks.map((field) => Number(field.value));
    const length = wav ? wav.frames / wav.sr : 0;
    const right = to > from && from >= 0 && to <= length;
    restoreButton.disabled = !plain || !element("working").hidden;
    fillButton.disabled = !right || restoreButton.disabled;
    for (const place of panel.querySelectorAll<HTMLElement>(".mark")) {
      place.hidden = !right;
      place.style.left = `${(100 * from) / length}%`;
      place.style.width = `${(100 * (to - from)) / length}%`;
    }
  }

  /** Fills all gaps in what was cleaned, or takes the fillings out. */
  function fill(): void {
    if (!plain || !source) return;
    job++;
    say("file-message", "");
    busy(true);
    say("file-status", gaps.length ? "Filling" : "Taking repairs out");
    ask({ kind: "fill", job, wav: plain, noisy: source, gaps });
  }

  /** Looks for what was lost. */
  function find(): void {
    if (!wav) return;
    job++;
    say("file-message", "");
    busy(true);
    say("file-status", "Looking for damage");
    ask({ kind: "find", job, wav });
  }

  const overlapping = (a: Gap): boolean =>
    gaps.some((b) => a.from < b.to && a.to > b.from && (a.channel ?? b.channel) === (b.channel ?? a.channel));

  /** What was done, in a sentence. */
  function done(): string {
    const back = "Peaks that an overload took are put back; the result holds floats, as they pass full scale.";
    const peaks = source === wav ? [] : [back];
    const filled = gaps.length === 1 ? ["One gap is filled."] : gaps.length ? [`${gaps.length} gaps are filled.`] : [];
    return [...peaks, ...filled].join(" ");
  }

  /** Ends what the worker does. */
  function stop(sentence = ""): void {
    job++;
    if (worker) ask({ kind: "stop" });
    busy(false);
    say("file-message", sentence);
  }

  function withResult(found: Wav | null): void {
    if (!wav) return;
    result = found;
    controls.load(wav, found);
    element("figure-after").classList.toggle("waiting", !found);
  }

  async function open(file: File): Promise<void> {
    stop();
    const mine = job;
    say("file-status", `Opening ${file.name}`);
    busy(true);
    try {
      const found = await decoded(file, (done) => {
        if (mine !== job) throw new Stopped();
        progress(done);
      });
      if (mine !== job) return;
      [wav, source, name, plain, gaps] = [found, found, file.name, null, []];
      for (const field of marks) [field.value, field.max] = ["", (found.frames / found.sr).toFixed(3)];
      withResult(null);
      for (const id of ["scale-before", "scale-after"]) scale(element(id), found.sr);
      element("about").textContent =
        `${file.name}: ${clock(found.frames / found.sr)}, ${(found.sr / 1000).toLocaleString("en")} kHz, ` +
        `${found.channels === 1 ? "mono" : found.channels === 2 ? "stereo" : `${found.channels} channels`}`;
      element("recording").hidden = false;
      drop.classList.add("small");
      clean();
    } catch (error) {
      if (mine !== job) return;
      busy(false);
      say("file-status", "");
      say("file-message", explain(error));
    }
  }

  function clean(): void {
    if (!source) return;
    job++;
    say("file-message", "");
    busy(true);
    say("file-status", "Cleaning");
    ask({ kind: "file", job, wav: source, ...settings() });
  }

  function answer(data: FromWorker): void {
    if (!("job" in data) || data.job !== job) return;
    if (data.kind === "looked") draw(element<HTMLCanvasElement>("picture-before"), data.picture);
    else if (data.kind === "progress") progress(data.done);
    else if (data.kind === "error") {
      stop(data.sentence);
      say("file-status", "");
    } else if (data.kind === "cleaned" && wav) {
      const first = !result;
      plain = data.wav;
      withResult(data.wav);
      busy(false);
      if (first) controls.choose("after");
      draw(element<HTMLCanvasElement>("picture-after"), data.picture);
      say("file-status", done() || `Cleaned in ${data.seconds.toFixed(1)} s.`);
      if (gaps.length) fill();
    } else if (data.kind === "found" && wav) {
      const fresh = data.gaps.filter((gap) => !overlapping(gap));
      gaps = [...gaps, ...fresh];
      if (source === wav && data.peaks.some(({ ceiling, curve }) => ceiling ?? curve)) {
        say("file-status", "Putting peaks back");
        return ask({ kind: "declip", job, wav, peaks: data.peaks });
      }
      if (fresh.length) return fill();
      busy(false);
      say("file-status", done() || "No gap and no overload is found.");
    } else if (data.kind === "declipped") {
      source = data.wav;
      clean();
    } else if (data.kind === "filled" && wav) {
      withResult(data.wav);
      busy(false);
      controls.choose("after");
      draw(element<HTMLCanvasElement>("picture-after"), data.picture);
      say("file-status", done() || "All repairs are out.");
      for (const field of marks) field.value = "";
      marked();
    }
  }

  for (const field of marks) field.addEventListener("input", marked);
  fillButton.addEventListener("click", () => {
    const [from, to] = marks.map((field) => Number(field.value));
    const gap = { from, to };
    if (to - from > LONGEST) {
      return say("file-message", `A gap of ${(to - from).toFixed(2)} s cannot be filled. Mark ${LONGEST} s at most.`);
    }
    if (overlapping(gap)) {
      return say("file-message", "A part of this is filled already. Take repairs out, or mark another stretch.");
    }
    gaps.push(gap);
    fill();
  });
  restoreButton.addEventListener("click", find);
  unfill.addEventListener("click", () => {
    const again = source !== wav;
    [gaps, source] = [[], wav];
    if (again) clean();
    else fill();
  });
  for (const canvas of panel.querySelectorAll<HTMLCanvasElement>("canvas.time")) {
    const secondsAt = (event: PointerEvent): number => {
      const place = Math.min(1, Math.max(0, event.offsetX / canvas.clientWidth));
      return wav ? (place * wav.frames) / wav.sr : 0;
    };
    let anchor = 0;
    canvas.addEventListener("pointerdown", (event) => {
      anchor = secondsAt(event);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!event.buttons || !wav) return;
      const here = secondsAt(event);
      if (Math.abs(here - anchor) * canvas.clientWidth < (4 * wav.frames) / wav.sr) return; // a click: it seeks
      [marks[0].value, marks[1].value] = [Math.min(anchor, here), Math.max(anchor, here)].map((x) => x.toFixed(3));
      marked();
    });
  }

  chooser.addEventListener("change", () => {
    if (chooser.files?.[0]) void open(chooser.files[0]);
    chooser.value = "";
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      const file = kind === "drop" ? (event as DragEvent).dataTransfer?.files[0] : null;
      if (file && !panel.hidden) void open(file);
    });
  }
  element("stop").addEventListener("click", () => {
    stop();
    say("file-status", "Stopped. Move a slider, or choose a file, to clean again.");
  });
  download.addEventListener("click", () => result && save(result, `${name.replace(/\.[^.]*$/, "")}.denoised.wav`));
}
