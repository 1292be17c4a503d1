/** What both halves of the page use: elements, messages to the reader, pictures, saving. */
import { placeOf, type Picture } from "./spectrum";
import { Sentence } from "./errors";
import type { Wav } from "./wav";

export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found as T;
}

/** One sentence that is shown and read aloud; an empty one goes away. */
export function say(id: string, sentence: string): void {
  const place = element(id);
  place.textContent = sentence;
  place.hidden = !sentence;
}

export function clock(seconds: number): string {
  const whole = Math.floor(seconds);
  const two = (x: number): string => String(x).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  return `${hours ? `${hours}:${two(Math.floor(whole / 60) % 60)}` : Math.floor(whole / 60)}:${two(whole % 60)}`;
}

export function save(wav: Wav, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(wav.blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** A context at the rate of the sound, or at the device's where the browser does not offer that rate. */
export function contextAt(sr?: number): AudioContext {
  try {
    return new AudioContext({ sampleRate: sr, latencyHint: "interactive" });
  } catch {
    return new AudioContext();
  }
}

/** Settings of the network that both halves have: strength and kept background, by sliders. */
export function sliders(prefix: string, changed: (final: boolean) => void): () => { strength: number; background: number } {
  const ids = ["strength", "background"].map((name) => element<HTMLInputElement>(`${prefix}-${name}`));
  for (const slider of ids) {
    const shown = element(`${slider.id}-value`);
    const text = (): string => {
      const part = `${Math.round(100 * Number(slider.value))} %`;
      slider.setAttribute("aria-valuetext", part);
      return (shown.textContent = part);
    };
    text();
    slider.addEventListener("input", () => (text(), changed(false)));
    slider.addEventListener("change", () => changed(true));
  }
  return () => ({ strength: Number(ids[0].value), background: Number(ids[1].value) });
}

const COLOURS = [
  [8, 10, 26], [44, 24, 92], [120, 36, 118], [200, 66, 88], [246, 138, 62], [252, 232, 164],
]; // from quiet to loud

export const palette: Uint8ClampedArray = (() => {
  const table = new Uint8ClampedArray(256 * 4);
  for (let v = 0; v < 256; v++) {
    const place = (v / 255) * (COLOURS.length - 1);
    const low = Math.min(COLOURS.length - 2, Math.floor(place));
    for (let k = 0; k < 3; k++) table[4 * v + k] = COLOURS[low][k] + (place - low) * (COLOURS[low + 1][k] - COLOURS[low][k]);
    table[4 * v + 3] = 255;
  }
  return table;
})();

export function context2d(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  const context = canvas.getContext("2d");
  if (!context) throw new Sentence("This browser draws no pictures. Update it, or use another one.");
  return context;
}

export function draw(canvas: HTMLCanvasElement, { columns, bands, values }: Picture): void {
  canvas.width = columns;
  canvas.height = bands;
  const image = new ImageData(columns, bands);
  for (let x = 0; x < columns; x++) {
    for (let b = 0; b < bands; b++) {
      const v = values[x * bands + b];
      image.data.set(palette.subarray(4 * v, 4 * v + 4), 4 * ((bands - 1 - b) * columns + x));
    }
  }
  context2d(canvas).putImageData(image, 0, 0);
}

/** Frequencies beside a picture. */
export function scale(place: HTMLElement, sr: number): void {
  place.replaceChildren(
    ...[250, 1000, 2000, 4000, 8000].filter((hertz) => placeOf(hertz, sr) < 0.98).map((hertz) => {
      const mark = document.createElement("span");
      mark.textContent = hertz < 1000 ? `${hertz}` : `${hertz / 1000}k`;
      mark.style.bottom = `${100 * placeOf(hertz, sr)}%`;
      return mark;
    }),
  );
}
