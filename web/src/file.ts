/** The half of the page for recordings: open, clean, compare, save. */
import { decoded } from "./decode";
import { explain, Stopped } from "./errors";
import { clock, draw, element, save, say, scale, sliders } from "./page";
import { transport } from "./transport";
import type { FromWorker, ToWorker } from "./worker";
import type { Wav } from "./wav";

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
      [wav, name] = [found, file.name];
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
      withResult(data.wav);
      busy(false);
      if (first) controls.choose("after");
      draw(element<HTMLCanvasElement>("picture-after"), data.picture);
      say("file-status", `Cleaned in ${data.seconds.toFixed(1)} s.`);
    }
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
