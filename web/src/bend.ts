/** Soft overload undone: wavelldm/light/bend.py, which says how and why. */
import { fft } from "./spectrum";

const FRAME = 0.064; // seconds, about: a power of two samples
const FRAMES = 300; // the loudest, that are looked at: at most
const LOUD = 0.1; // of the energy of the loudest frame, at least
const FLOOR = 1e-4; // of the peak: what is quieter in a bin may be rounding
const HARD = 12; // the sharpest knee: where it is the likeliest, peaks were cut off
const GAIN = 0.03; // nats per sample from which on a curve is believed
const COARSE = 12; // how often likelihood is asked for on a grid, ...
const FINE = 8; // ... and around its best place
const NEAREST = [0.1, 9]; // -log of 1 - peak / ceiling, from hardly bent to flat

/** What bent a channel: a shape, and the ceiling that it does not pass. */
export interface Curve {
  shape: string;
  ceiling: number;
  gain: number; // nats per sample that the sound is more likely without it
}

/** u = y / c to x / c, and the logarithm of the slope of that. */
type Inverse = (u: number) => [number, number];

const knee =
  (n: number): Inverse =>
  (u) => {
    const room = 1 - Math.abs(u) ** n;
    return [u * room ** (-1 / n), -(1 + 1 / n) * Math.log(room)];
  };

const SHAPES: Record<string, Inverse> = {
  tanh: (u) => [Math.atanh(u), -Math.log1p(-u * u)],
  arctan: (u) => {
    const angle = (Math.PI / 2) * u;
    return [Math.tan(angle) * (2 / Math.PI), -2 * Math.log(Math.cos(angle))];
  },
  ...Object.fromEntries([2, 3, 4, 6, HARD].map((n) => [`knee ${n}`, knee(n)])),
};

const energyOf = (frame: Float32Array): number => frame.reduce((sum, x) => sum + x * x, 0);

/** The loudest frames of one channel that comes in blocks: all that is needed to find its curve. */
export class Loudest {
  private readonly size: number;
  private waiting = new Float32Array(0);
  private frames: Float32Array[] = [];

  constructor(sr: number) {
    this.size = 2 ** Math.round(Math.log2(FRAME * sr));
  }

  push(sound: Float32Array): void {
    const both = new Float32Array(this.waiting.length + sound.length);
    both.set(this.waiting);
    both.set(sound, this.waiting.length);
    const whole = both.length - (both.length % this.size);
    for (let at = 0; at < whole; at += this.size) this.frames.push(both.slice(at, at + this.size));
    this.waiting = both.slice(whole);
    if (this.frames.length <= FRAMES) return;
    const order = this.frames.map((frame, i) => ({ i, energy: energyOf(frame) })).sort((a, b) => b.energy - a.energy);
    const kept = new Set(order.slice(0, FRAMES).map(({ i }) => i));
    this.frames = this.frames.filter((_, i) => kept.has(i));
  }

  /** The curve that bent the channel, or null where nothing is more likely. */
  curve(): Curve | null {
    return this.frames.length ? likeliest(this.frames) : null;
  }
}

/** A channel with its curve undone. Its loudest samples become louder, and may pass 1. */
export function straighten(sound: Float32Array, { shape, ceiling }: Curve): Float32Array {
  const most = 1 - Math.exp(-NEAREST[1]);
  return sound.map((x) => SHAPES[shape](Math.min(most, Math.max(-most, x / ceiling)))[0] * ceiling);
}

function likeliest(all: Float32Array[]): Curve | null {
  const size = all[0].length;
  const energies = all.map(energyOf);
  const loudest = Math.max(...energies);
  const frames = all.filter((_, t) => energies[t] > LOUD * loudest);
  const peak = frames.reduce((most, frame) => frame.reduce((a, x) => Math.max(a, Math.abs(x)), most), 0);
  if (!peak) return null;
  const window = Float64Array.from({ length: size }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size));
  const floor = ((FLOOR * peak * size) / 4) ** 2;
  const mean = window.reduce((sum, w) => sum + w * w, 0) / size;
  const weight = window.map((w) => (w * w) / mean);
  const bins = size / 2 + 1;
  const [re, im] = [new Float64Array(size), new Float64Array(size)];
  /** Half the mean logarithm of the powers of two frames in `re` and `im`, times their bins: two real transforms in one. */
  const spread = (two: boolean): number => {
    fft(re, im);
    let sum = 0;
    for (let k = 0; k < bins; k++) {
      const j = (size - k) % size;
      const [a, b, c, d] = [re[k] + re[j], im[k] - im[j], im[k] + im[j], re[j] - re[k]];
      sum += Math.log((a * a + b * b) / 4 + floor);
      if (two) sum += Math.log((c * c + d * d) / 4 + floor);
    }
    return sum / 2;
  };
  /** The mean of the same over all frames, each sample changed by `change` first. */
  const meanOf = (change: (x: number, i: number) => number): number => {
    let sum = 0;
    for (let t = 0; t < frames.length; t += 2) {
      const two = t + 1 < frames.length;
      for (let i = 0; i < size; i++) {
        re[i] = change(frames[t][i], i) * window[i];
        im[i] = two ? change(frames[t + 1][i], i) * window[i] : 0;
      }
      sum += spread(two);
    }
    return sum / (frames.length * bins);
  };
  const plain = meanOf((x) => x);
  const gain = (shape: string, near: number): number => {
    const ceiling = peak / (1 - Math.exp(-near));
    const inverse = SHAPES[shape];
    let slopes = 0;
    const bent = meanOf((y, i) => {
      const [x, slope] = inverse(y / ceiling);
      slopes += slope * weight[i];
      return x * ceiling;
    });
    return plain - bent + slopes / (frames.length * size);
  };
  let best = { gain: -Infinity, near: 0, shape: "" };
  for (const shape of Object.keys(SHAPES)) {
    const [value, near] = highest((x) => gain(shape, x), NEAREST[0], NEAREST[1]);
    if (value > best.gain) best = { gain: value, near, shape };
  }
  if (best.gain < GAIN || best.shape === `knee ${HARD}`) return null;
  return { shape: best.shape, ceiling: peak / (1 - Math.exp(-best.near)), gain: best.gain };
}

/** The highest value of a function and where it lies: on a grid, then around its best place by golden section. */
function highest(of: (x: number) => number, low: number, high: number): [number, number] {
  const grid = Array.from({ length: COARSE }, (_, i) => low + ((high - low) * i) / (COARSE - 1));
  const seen = new Map(grid.map((x) => [x, of(x)]));
  const at = (x: number): number => {
    const known = seen.get(x) ?? of(x);
    seen.set(x, known);
    return known;
  };
  const k = grid.reduce((best, x, i) => (at(x) > at(grid[best]) ? i : best), 0);
  let [a, b] = [grid[Math.max(0, k - 1)], grid[Math.min(COARSE - 1, k + 1)]];
  const golden = (Math.sqrt(5) - 1) / 2;
  for (let round = 0; round < FINE; round++) {
    const [c, d] = [b - golden * (b - a), a + golden * (b - a)];
    [a, b] = at(c) > at(d) ? [a, d] : [c, b];
  }
  return [...seen].reduce<[number, number]>((best, [x, value]) => (value > best[0] ? [value, x] : best), [-Infinity, 0]);
}
