/** The half of the page for the microphone: it starts the audio thread and the worker, and shows what they do. */
import { FADE, GAUGES, KNOBS, PANEL } from "./chain";
import { explain, Sentence } from "./errors";
import { context2d, contextAt, draw, element, palette, save, say, scale, sliders } from "./page";
import { Ring } from "./ring";
import { latencyOf } from "./session";
import { bandsOf } from "./spectrum";
import type { Wav } from "./wav";
import type { FromWorker, Settings, ToWorker } from "./worker";
import type { Options, Wiring } from "./worklet";

const RINGS = 4; // seconds that fit
const MOST_SR = 48000; // of a network
const BANDS = 96; // rows of a live picture
const SLOW = "This machine is too busy: you hear the original. Close other programs, or choose a longer buffer.";

interface Running {
  context: AudioContext;
  microphone: MediaStream;
  node: AudioWorkletNode;
  worker: Worker;
  panel: Float32Array;
  late: number; // samples
  analysers: AnalyserNode[];
}

/** Samples from the microphone to the speaker, without those of the device; `buffer` in seconds. */
export const lateness = (facts: { sr: number; latency: number }, sr: number, buffer: number): number =>
  latencyOf(facts, sr) + Math.ceil((FADE + buffer) * sr) + 128;

async function microphoneOf(): Promise<MediaStream> {
  if (!globalThis.crossOriginIsolated || typeof SharedArrayBuffer === "undefined") {
    throw new Sentence("Live cleaning needs an isolated page. Open it with `wavelldm web`, in Chrome, Edge or Firefox.");
  }
  if (!navigator.mediaDevices?.getUserMedia || typeof AudioWorkletNode === "undefined") {
    throw new Sentence("This browser gives pages no microphone here. Open the page on localhost, in a current browser.");
  }
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: plain });
  } catch (error) {
    const name = (error as DOMException).name;
    if (name === "NotFoundError") throw new Sentence("There is no microphone. Plug one in and press Start again.");
    if (name === "NotReadableError") {
      throw new Sentence("Another program holds the microphone. Close that program and press Start again.");
    }
    throw new Sentence("The microphone was refused. Allow it in the address bar of the browser and press Start again.");
  }
}

/** Everything from the microphone to the speaker, once the network is ready. */
async function begin(
  buffer: number,
  talk: boolean,
  settings: Settings,
  hear: (message: FromWorker) => void,
): Promise<Running> {
  const microphone = await microphoneOf();
  const context = contextAt();
  const worker = new Worker("worker.js", { type: "module" });
  try {
    const sr = context.sampleRate;
    const wiring: Wiring = {
      toWorker: Ring.memory(RINGS * MOST_SR),
      fromWorker: Ring.memory(3 * RINGS * MOST_SR),
      recorded: Ring.memory(RINGS * sr),
      panel: new SharedArrayBuffer(4 * PANEL),
    };
    const facts = await new Promise<{ sr: number; latency: number }>((resolve, reject) => {
      worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
        if (data.kind === "ready") resolve(data);
        else if (data.kind === "error") reject(new Sentence(data.sentence));
        hear(data);
      };
      worker.onerror = () => reject(new Sentence("The network could not be started. Reload the page and try again."));
      worker.postMessage({ kind: "live", wiring, sr, buffer, talk, ...settings } satisfies ToWorker);
    });
    const late = lateness(facts, sr, buffer);
    await context.audioWorklet.addModule("worklet.js");
    const node = new AudioWorkletNode(context, "cleaner", {
      numberOfInputs: 1,
      numberOfOutputs: 2,
      outputChannelCount: [1, 1],
      channelCount: 1,
      channelCountMode: "explicit",
      processorOptions: { wiring, lowSr: facts.sr, late } satisfies Options,
    });
    context.createMediaStreamSource(microphone).connect(node);
    const analysers = [1, 0].map((output) => {
      const analyser = context.createAnalyser();
      Object.assign(analyser, { fftSize: 2048, smoothingTimeConstant: 0.3, minDecibels: -110, maxDecibels: -25 });
      node.connect(analyser, output);
      return analyser;
    });
    node.connect(context.destination, 0);
    await context.resume();
    return { context, microphone, node, worker, panel: new Float32Array(wiring.panel), late, analysers };
  } catch (error) {
    for (const track of microphone.getTracks()) track.stop();
    worker.terminate();
    await context.close();
    throw error;
  }
}

export function liveTab(): void {
  const start = element<HTMLButtonElement>("start");
  const record = element<HTMLButtonElement>("record");
  const keep = element<HTMLButtonElement>("keep");
  const bypass = element<HTMLInputElement>("bypass");
  const silent = element<HTMLInputElement>("silent");
  const buffer = element<HTMLSelectElement>("buffer");
  const canvases = ["live-before", "live-after"].map((id) => element<HTMLCanvasElement>(id));
  let running: Running | null = null;
  let starting = false;
  let wav: Wav | null = null;
  let slowUntil = 0;
  let painted = 0;
  let written = 0;
  let bands: { first: number; last: number }[] = [];
  let recordedFrom = 0;
  const through = element<HTMLSelectElement>("through");
  const lost = element<HTMLInputElement>("live-lost");
  const change = (): void => running?.worker.postMessage({ kind: "settings", ...settings() } satisfies ToWorker);
  const cleaning = sliders("live", change);
  const settings = (): Settings => ({ ...cleaning(), lost: Number(lost.value) });

  function show(): void {
    start.textContent = running ? "Stop" : starting ? "Starting" : "Start";
    start.disabled = starting;
    start.classList.toggle("on", !!running);
    record.disabled = !running;
    buffer.disabled = through.disabled = !!running || starting;
    const talk = through.value === "talk";
    element("live-cleaning").hidden = talk;
    element("live-talking").hidden = !talk;
    const share = `${Math.round(100 * Number(lost.value))} %`;
    lost.setAttribute("aria-valuetext", share);
    element("live-lost-value").textContent = share;
    keep.disabled = !wav;
  }

  function hear(message: FromWorker): void {
    if (message.kind === "recorded") {
      wav = message.wav;
      say("live-status", wav ? `Recorded ${(wav.frames / wav.sr).toFixed(1)} s. Press Save to keep it.` : "");
      show();
    } else if (message.kind === "error" && running) void stop(message.sentence);
  }

  async function stop(sentence = ""): Promise<void> {
    const ended = running;
    if (!ended) return;
    if (record.getAttribute("aria-pressed") === "true") await recording(false);
    running = null;
    ended.node.port.postMessage("stop");
    for (const track of ended.microphone.getTracks()) track.stop();
    await ended.context.close();
    ended.worker.postMessage({ kind: "stop" } satisfies ToWorker);
    setTimeout(() => ended.worker.terminate(), 1000);
    say("live-message", sentence);
    say("live-notice", "");
    show();
  }

  async function recording(on: boolean): Promise<void> {
    if (!running) return;
    record.setAttribute("aria-pressed", String(on));
    record.textContent = on ? "Stop recording" : "Record";
    running.panel[KNOBS.record] = on ? 1 : 0;
    recordedFrom = performance.now();
    if (on) {
      say("live-status", "Recording");
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 100)); // the last block is on its way
    running.worker.postMessage({ kind: "keep" } satisfies ToWorker);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }

  function frame(time: number): void {
    if (!running) return;
    requestAnimationFrame(frame);
    const { panel, context, late } = running;
    panel[KNOBS.bypass] = bypass.checked ? 1 : 0;
    panel[KNOBS.silent] = silent.checked ? 0 : 1;
    if (panel[GAUGES.late]) {
      panel[GAUGES.late] = 0;
      slowUntil = time + 4000;
      say("live-notice", SLOW);
    } else if (slowUntil && time > slowUntil && panel[GAUGES.mix] + panel[KNOBS.bypass] > 0) {
      slowUntil = 0;
      say("live-notice", "");
    }
    const busy = panel[GAUGES.load] > 0.6; // then the network comes first
    if (time - painted > (busy ? 200 : 30)) {
      painted = time;
      running.analysers.forEach((analyser, i) => column(canvases[i], analyser, bands));
    }
    if (time - written < 250) return;
    written = time;
    for (const [id, power] of [["meter-before", panel[GAUGES.before]], ["meter-after", panel[GAUGES.after]]] as const) {
      element<HTMLMeterElement>(id).value = Math.max(-70, 10 * Math.log10(power + 1e-10));
    }
    const own = late / context.sampleRate;
    const device = context.baseLatency + (context.outputLatency || 0);
    element("latency").textContent = `${Math.round(1000 * (own + device))} ms`;
    element("latency").title = `${Math.round(1000 * own)} ms here, ${Math.round(1000 * device)} ms in the device`;
    element("load").textContent = `${Math.round(100 * panel[GAUGES.load])} %`;
    element("spare").textContent = `${Math.max(0, Math.round(1000 * panel[GAUGES.spare]))} ms`;
    if (panel[KNOBS.record]) {
      element("record").textContent = `Stop recording (${((time - recordedFrom) / 1000).toFixed(0)} s)`;
    }
  }

  start.addEventListener("click", async () => {
    if (running) return stop();
    starting = true;
    say("live-message", "");
    say("live-status", "");
    show();
    try {
      const begun = await begin(Number(buffer.value) / 1000, through.value === "talk", settings(), hear);
      running = begun;
      begun.microphone.getTracks()[0].addEventListener("ended", () => {
        void stop("The microphone is gone. Plug it in again and press Start.");
      });
      for (const id of ["scale-live-before", "scale-live-after"]) scale(element(id), begun.context.sampleRate);
      bands = bandsOf(begun.context.sampleRate, begun.analysers[0].frequencyBinCount, BANDS);
      requestAnimationFrame(frame);
    } catch (error) {
      say("live-message", explain(error));
    }
    starting = false;
    show();
  });
  through.addEventListener("change", show);
  lost.addEventListener("input", () => (show(), change()));
  record.addEventListener("click", () => void recording(record.getAttribute("aria-pressed") !== "true"));
  keep.addEventListener("click", () => wav && save(wav, "cleaned.wav"));
  for (const canvas of canvases) draw(canvas, { columns: 400, bands: BANDS, values: new Uint8Array(400 * BANDS) });
  show();
}

/** One more column at the right end of a picture that moves to the left. */
function column(canvas: HTMLCanvasElement, analyser: AnalyserNode, bands: { first: number; last: number }[]): void {
  const values = new Uint8Array(analyser.frequencyBinCount);
  analyser.getByteFrequencyData(values);
  const picture = context2d(canvas);
  picture.drawImage(canvas, -1, 0);
  const image = new ImageData(1, BANDS);
  bands.forEach(({ first, last }, b) => {
    const v = Math.max(...values.subarray(first, last + 1));
    image.data.set(palette.subarray(4 * v, 4 * v + 4), 4 * (BANDS - 1 - b));
  });
  picture.putImageData(image, canvas.width - 1, 0);
}
