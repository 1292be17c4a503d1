/** The half of the page for recordings: open, clean, compare, save. */
import { decoded } from "./decode";
import { explain } from "./errors";
import { clock, draw, element, save, say, scale, sliders } from "./page";
import { Player } from "./player";
import type { FromWorker, ToWorker } from "./worker";
import type { Wav } from "./wav";

export function fileTab(): void {
  const chooser = element<HTMLInputElement>("file");
  const drop = element("drop");
  const position = element<HTMLInputElement>("position");
  const play = element<HTMLButtonElement>("play");
  const download = element<HTMLButtonElement>("download");
  const after = element<HTMLInputElement>("hear-after");
  const before = element<HTMLInputElement>("hear-before");
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
  const player = new Player(show);
  const settings = sliders("file", (final) => final && wav && clean());

  function show(): void {
    play.textContent = player.playing ? "Pause" : "Play";
    const seconds = player.seconds;
    if (!wav) return;
    const length = wav.frames / wav.sr;
    position.value = String(seconds / length);
    position.setAttribute("aria-valuetext", `${clock(seconds)} of ${clock(length)}`);
    element("time").textContent = `${clock(seconds)} / ${clock(length)}`;
    for (const line of document.querySelectorAll<HTMLElement>("#panel-file .playhead")) {
      line.style.left = `${(100 * seconds) / length}%`;
    }
  }

  function busy(working: boolean): void {
    element("working").hidden = !working;
    bar.value = 0;
    download.disabled = working || !result;
  }

  /** Ends what the worker does. */
  function stop(sentence = ""): void {
    job++;
    if (worker) ask({ kind: "stop" });
    busy(false);
    say("file-message", sentence);
  }

  function choose(which: "before" | "after"): void {
    if (which === "after" && !result) return;
    (which === "after" ? after : before).checked = true;
    player.hear(which === "after" ? 1 : 0);
  }

  function withResult(found: Wav | null): void {
    result = found;
    after.disabled = !found;
    element("figure-after").classList.toggle("waiting", !found);
    if (!found) choose("before");
  }

  async function open(file: File): Promise<void> {
    stop();
    const mine = job;
    say("file-status", `Opening ${file.name}`);
    try {
      const found = await decoded(file);
      if (mine !== job) return;
      player.load(found);
      [wav, name] = [found, file.name];
      withResult(null);
      for (const id of ["scale-before", "scale-after"]) scale(element(id), found.sr);
      element("about").textContent =
        `${file.name}: ${clock(found.frames / found.sr)}, ${(found.sr / 1000).toLocaleString("en")} kHz, ` +
        `${found.channels === 1 ? "mono" : found.channels === 2 ? "stereo" : `${found.channels} channels`}`;
      element("recording").hidden = false;
      drop.classList.add("small");
      clean();
      show();
    } catch (error) {
      say("file-status", "");
      if (mine === job) say("file-message", explain(error));
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
    else if (data.kind === "progress") {
      bar.value = data.done;
      element("percent").textContent = `${Math.round(100 * data.done)} %`;
    } else if (data.kind === "error") {
      stop(data.sentence);
      say("file-status", "");
    } else if (data.kind === "cleaned" && wav) {
      const [again, first] = [player.playing, !result];
      player.load(wav, data.wav);
      withResult(data.wav);
      busy(false);
      if (first) choose("after");
      if (again) void player.play();
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
      if (file) void open(file);
    });
  }
  play.addEventListener("click", async () => {
    if (player.playing) player.pause();
    else void player.play();
    show();
  });
  position.addEventListener("input", async () => {
    if (wav) await player.seek((Number(position.value) * wav.frames) / wav.sr);
    show();
  });
  for (const canvas of document.querySelectorAll<HTMLCanvasElement>("#panel-file canvas")) {
    canvas.addEventListener("click", async (event) => {
      if (wav) await player.seek(((event.offsetX / canvas.clientWidth) * wav.frames) / wav.sr);
      show();
    });
  }
  before.addEventListener("change", () => choose("before"));
  after.addEventListener("change", () => choose("after"));
  element("stop").addEventListener("click", () => {
    stop();
    say("file-status", "Stopped. Move a slider, or choose a file, to clean again.");
  });
  download.addEventListener("click", () => result && save(result, `${name.replace(/\.[^.]*$/, "")}.denoised.wav`));
  document.addEventListener("keydown", (event) => {
    const place = event.target as HTMLElement;
    if (element("panel-file").hidden || !wav || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && !place.closest("button, input, select, label")) {
      event.preventDefault();
      play.click();
    }
    if (event.key === "b") choose(before.checked ? "after" : "before");
  });
  setInterval(() => player.playing && show(), 50);
}
