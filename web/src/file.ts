/** The half of the page for recordings: open, clean, compare, save. */
import { decoded } from "./decode";
import { explain, Stopped } from "./errors";
import { clock, draw, element, save, say, scale, sliders } from "./page";
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
      worker = new Worker("worker.js", { type: "module" });
      worker.onmessage = ({ data }: MessageEvent<FromWorker>) => answer(data);
      worker.onerror = () => stop("The cleaning stopped by itself. Reload the page and try again.");
    }
    worker.postMessage(message);
  };
  const panel = element("panel-file");
  const marks = ["gap-from", "gap-to"].map((id) => element<HTMLInputElement>(id));
  const fillButton = element<HTMLButtonElement>("fill");
  const unfill = element<HTMLButtonElement>("unfill");
  let gaps: [number, number][] = []; // seconds: stretches that were lost, and are filled
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
    unfill.disabled = working || !gaps.length;
    marked();
  }

  /** Shows what is marked as lost. */
  function marked(): void {
    const [from, to] = marks.map((field) => Number(field.value));
    const length = wav ? wav.frames / wav.sr : 0;
    const right = to > from && from >= 0 && to <= length;
    fillButton.disabled = !right || !plain || !element("working").hidden;
    for (const place of panel.querySelectorAll<HTMLElement>(".mark")) {
      place.hidden = !right;
      place.style.left = `${(100 * from) / length}%`;
      place.style.width = `${(100 * (to - from)) / length}%`;
    }
  }

  /** Fills all gaps in what was cleaned, or takes the fillings out. */
  function fill(): void {
    if (!plain || !wav) return;
    job++;
    say("file-message", "");
    busy(true);
    say("file-status", gaps.length ? "Filling" : "Taking fillings out");
    ask({ kind: "fill", job, wav: plain, noisy: wav, gaps });
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
      [wav, name, plain, gaps] = [found, file.name, null, []];
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
    if (!wav) return;
    job++;
    say("file-message", "");
    busy(true);
    say("file-status", "Cleaning");
    ask({ kind: "file", job, wav, ...settings() });
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
      say("file-status", `Cleaned in ${data.seconds.toFixed(1)} s.`);
      if (gaps.length) fill();
    } else if (data.kind === "filled" && wav) {
      withResult(data.wav);
      busy(false);
      controls.choose("after");
      draw(element<HTMLCanvasElement>("picture-after"), data.picture);
      const many = gaps.length === 1 ? "One gap is filled." : `${gaps.length} gaps are filled.`;
      say("file-status", gaps.length ? many : "All fillings are out.");
      for (const field of marks) field.value = "";
      marked();
    }
  }

  for (const field of marks) field.addEventListener("input", marked);
  fillButton.addEventListener("click", () => {
    const [from, to] = marks.map((field) => Number(field.value));
    if (to - from > LONGEST) {
      return say("file-message", `A gap of ${(to - from).toFixed(2)} s cannot be filled. Mark ${LONGEST} s at most.`);
    }
    if (gaps.some(([a, b]) => from < b && to > a)) {
      return say("file-message", "A part of this is filled already. Take fillings out, or mark another stretch.");
    }
    gaps.push([from, to]);
    fill();
  });
  unfill.addEventListener("click", () => {
    gaps = [];
    fill();
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
