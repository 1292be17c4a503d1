/** Clipped peaks put back: wavelldm/light/clip.py, which says how and why. */
import { straighten } from "./bend";
import { windows } from "./blocks";
import type { Peaks } from "./find";
import { Fourier } from "./spectrum";

const HOP = 0.02; // seconds, and ...
const OVERLAP = 4; // ... frames over each sample
const ROUNDS = 60;
const THRESHOLD = [0.05, 1.5e-5]; // in a frame's strongest band, first and last
const WIDTH = 1000; // Hz over which powers are averaged: thresholds rise where they fall, ...
const TILT = 0.7; // ... with this exponent
const RANGE = 1e-5; // least such power that counts, of the frame's strongest band
const STEP = 1.3; // of each round, ...
const MOMENTUM = 0.8; // ... and how much of the last way is gone on
const TINY = 1e-9; // least ceiling
const PIECE = 8; // seconds that are worked on at once, ...
const MARGIN = 0.5; // ... and that they see beyond their ends

/** The next size with no factor above 5. */
function fast(size: number): number {
  let rest = size;
  for (const factor of [2, 3, 5]) while (rest % factor === 0) rest /= factor;
  return rest === 1 ? size : fast(size + 1);
}

/**
 * The recording piece by piece, with its peaks: bent ones straightened, and put back where they were cut off. `block` as
 * for `findDamage`.
 */
export async function* declipped(
  sr: number,
  frames: number,
  peaks: Peaks[],
  block: (from: number, count: number) => Promise<Float32Array[]>,
): AsyncGenerator<Float32Array[]> {
  const hop = fast(Math.max(1, Math.round(HOP * sr)));
  const [margin, size] = [MARGIN, PIECE].map((seconds) => Math.round((seconds * sr) / hop));
  for (const { at, length, before, count } of windows(frames, hop, margin, size)) {
    const rows = await block(at, length);
    yield rows.map((row, c) => {
      const { ceiling, curve } = peaks[c];
      const whole = ceiling ? shrunk(row, ceiling, sr, hop) : curve ? straighten(row, curve) : row;
      return whole.slice(before * hop, (before + count) * hop);
    });
  }
}

/** One channel, declipped at once. Only frames that hold a clipped sample are computed. */
function shrunk(wav: Float32Array, [low, high]: [number, number], sr: number, hop: number): Float32Array {
  const [n, side, size] = [wav.length, (OVERLAP - 1) * hop, OVERLAP * hop];
  const count = Math.ceil(n / hop) + 2 * (OVERLAP - 1); // slabs of one hop, of which OVERLAP make a frame
  const touched = new Uint8Array(count);
  const known = new Float64Array(count * hop);
  const [least, most] = [new Float64Array(count * hop), new Float64Array(count * hop)];
  wav.forEach((x, i) => {
    const j = side + i;
    known[j] = x;
    least[j] = x >= high ? high : x <= low ? -Infinity : x;
    most[j] = x <= low ? low : x >= high ? Infinity : x;
    if (x >= high || x <= low) touched[Math.floor(j / hop)] = 1;
  });
  const first: number[] = []; // slab of each frame
  const kept = new Uint8Array(count);
  for (let f = 0; f + OVERLAP <= count; f++) {
    if (!touched.subarray(f, f + OVERLAP).some((x) => x)) continue;
    first.push(f);
    kept.fill(1, f, f + OVERLAP);
  }
  if (!first.length) return wav;
  const window = Float64Array.from({ length: size }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size));
  const back = window.map((w, i) => {
    let sum = 0;
    for (let k = i % hop; k < size; k += hop) sum += window[k] ** 2;
    return w / sum;
  });
  const bins = size / 2 + 1;
  const ends = [low, high].map((end) => (Number.isFinite(end) ? Math.abs(end) : 0));
  const whole = (Math.max(TINY, ...ends) * size) / 4; // the magnitude of a sine as high as the ceiling
  const transform = new Fourier(size);
  const [re, im] = [new Float64Array(size), new Float64Array(size)];
  const there = (x: Float64Array, f: number, gain: number): void => {
    for (let i = 0; i < size; i++) re[i] = x[f * hop + i] * window[i] * gain;
    im.fill(0);
    transform.run(re, im);
  };
  const units = first.map((f) => {
    there(known, f, 1 / whole);
    return thresholds(re, im, bins, sr).map((x) => (whole * x) ** 2);
  });
  let [last, here] = [known, known];
  for (let round = 0; round < ROUNDS; round++) {
    const threshold = THRESHOLD[0] * (THRESHOLD[1] / THRESHOLD[0]) ** (round / (ROUNDS - 1));
    const now = new Float64Array(count * hop);
    first.forEach((f, t) => {
      there(here, f, 1);
      for (let k = 0; k < bins; k++) {
        const power = re[k] ** 2 + im[k] ** 2;
        const gain = power / (power + threshold ** 2 * units[t][k]) || 0;
        re[k] *= gain;
        im[k] *= -gain; // the conjugate: the same transform leads back
        if (k % (size / 2)) [re[size - k], im[size - k]] = [re[k], -im[k]];
      }
      transform.run(re, im);
      for (let i = 0; i < size; i++) now[f * hop + i] += (re[i] / size) * back[i];
    });
    const next = here.slice();
    for (let slab = 0; slab < count; slab++) {
      if (!kept[slab]) continue;
      for (let i = slab * hop; i < (slab + 1) * hop; i++) {
        now[i] = Math.min(most[i], Math.max(least[i], here[i] + STEP * (now[i] - here[i])));
        next[i] = Math.min(most[i], Math.max(least[i], now[i] + MOMENTUM * (now[i] - last[i])));
      }
    }
    [last, here] = [now, next];
  }
  return wav.map((x, i) => (kept[Math.floor((side + i) / hop)] ? last[side + i] : x));
}

/** A frame's spectrum as it was clipped -> how its thresholds differ over frequency: 1 in the strongest band. */
function thresholds(re: Float64Array, im: Float64Array, bins: number, sr: number): Float64Array {
  const size = re.length;
  const half = Math.max(1, Math.round((WIDTH * size) / sr / 2));
  const sums = new Float64Array(bins + 1);
  for (let k = 0; k < bins; k++) sums[k + 1] = sums[k] + re[k] ** 2 + im[k] ** 2;
  const smooth = Float64Array.from({ length: bins }, (_, k) => {
    const [a, b] = [Math.max(0, k - half), Math.min(bins, k + half + 1)];
    return (sums[b] - sums[a]) / (b - a);
  });
  const strongest = smooth.reduce((a, b) => Math.max(a, b), TINY ** 2);
  return smooth.map((x) => (Math.max(0, x) / strongest + RANGE) ** (-TILT / 2));
}
