/**
 * Lost stretches of speech filled with what belongs there: wavelldm/light/gaps.py, pitch.py and `fill` of restorer.py.
 *
 *   what is known -> magnitudes, pitch -> network (graph) -> wanted magnitudes -> phases by Griffin and Lim -> samples
 *
 * Sound is at 16 kHz, one channel. Spectra are rows of 513 numbers, one row a frame.
 */
import type { Graph } from "./graph";
import { fft } from "./spectrum";

export const SR = 16000;
export const HOP = 256;
export const CHUNK = 128; // frames: gaps that begin in one chunk lie in the middle of what is looked at, ...
export const AROUND = 96; // ... with so many frames on either side
const N_FFT = 1024;
const BINS = 513;
const HALF = 0.6; // share of its window from which on a frame is an end of a line
const FREE = 0.7; // below it a frame takes the wanted magnitudes
const ROUNDS = 16; // of Griffin-Lim, ...
const MOMENTUM = 0.5; // ... and how far each goes on
const LEAST = 1e-5; // smallest magnitude of a line's end
const ORDER = 400; // of linear prediction; ...
const HEARD = 1600; // ... samples that it learns from, ...
const RINGS = 1280; // ... and for which it rings on
const BREATH = 1e-3; // of the sound's level
const TRUST = 0.6; // of what rings on, beside what is known, ...
const NEAR = 400; // ... and samples over which that falls
const RMS = 0.05; // level at which the network hears everything
const UNIT = Math.sqrt(384) * RMS; // magnitude of a bin of white noise at that level
const DEEP = -7; // dB of speech against noise: below, the network would invent speech

/** A stretch that was lost, in seconds; without a channel, in all of them. */
export interface Gap {
  from: number;
  to: number;
  channel?: number;
}

const WINDOW = Float64Array.from({ length: N_FFT }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / N_FFT));

interface Spectrum {
  re: Float64Array; // (frames * 513)
  im: Float64Array;
}

const framesOf = (n: number): number => 1 + Math.floor(n / HOP);

/** wav (n) -> frames; frame t lies in the middle of sample t * HOP, and beyond its ends the sound is mirrored. */
function stft(wav: Float64Array): Spectrum {
  const [n, count, half] = [wav.length, framesOf(wav.length), N_FFT / 2];
  const mirrored = half < n;
  const at = (i: number): number => {
    if (i >= 0 && i < n) return wav[i];
    const j = i < 0 ? -i : 2 * n - 2 - i;
    return mirrored && j >= 0 && j < n ? wav[j] : 0;
  };
  const spec = { re: new Float64Array(count * BINS), im: new Float64Array(count * BINS) };
  const [re, im] = [new Float64Array(N_FFT), new Float64Array(N_FFT)];
  for (let t = 0; t < count; t++) {
    for (let i = 0; i < N_FFT; i++) re[i] = at(t * HOP - half + i) * WINDOW[i];
    im.fill(0);
    fft(re, im);
    spec.re.set(re.subarray(0, BINS), t * BINS);
    spec.im.set(im.subarray(0, BINS), t * BINS);
  }
  return spec;
}

/** Frames -> wav (n): the least-squares inverse (Griffin & Lim 1984, eq. 6). */
function istft(spec: Spectrum, n: number): Float64Array {
  const count = framesOf(n);
  const [out, envelope] = [new Float64Array(count * HOP + N_FFT), new Float64Array(count * HOP + N_FFT)];
  const [re, im] = [new Float64Array(N_FFT), new Float64Array(N_FFT)];
  for (let t = 0; t < count; t++) {
    for (let k = 0; k < BINS; k++) {
      re[k] = spec.re[t * BINS + k];
      im[k] = k % (N_FFT / 2) ? -spec.im[t * BINS + k] : 0; // the conjugate: the same transform leads back
      if (k % (N_FFT / 2)) [re[N_FFT - k], im[N_FFT - k]] = [re[k], -im[k]];
    }
    fft(re, im);
    for (let i = 0; i < N_FFT; i++) {
      out[t * HOP + i] += (re[i] / N_FFT) * WINDOW[i];
      envelope[t * HOP + i] += WINDOW[i] ** 2;
    }
  }
  const half = N_FFT / 2;
  return Float64Array.from({ length: n }, (_, i) => out[i + half] / Math.max(envelope[i + half], 1e-4));
}

const magnitudes = ({ re, im }: Spectrum): Float64Array =>
  re.map((x, i) => Math.sqrt(Math.max(1e-20, x * x + im[i] * im[i])));

/** gaps (n), 1 where samples are lost -> how much of each frame's window, in energy, is known. */
export function knownShare(gaps: Uint8Array): Float64Array {
  const total = WINDOW.reduce((sum, w) => sum + w * w, 0);
  return Float64Array.from({ length: framesOf(gaps.length) }, (_, t) => {
    let known = 0;
    for (let i = 0; i < N_FFT; i++) if (!gaps[t * HOP - N_FFT / 2 + i]) known += WINDOW[i] ** 2;
    return Math.min(1, Math.max(0, known / total));
  });
}

/** Rows of `width` numbers, on straight lines across those that are not known; before and after all, they are held. */
function interpolate(x: Float64Array, known: boolean[], width: number): Float64Array {
  const out = x.slice();
  let last = -1;
  for (let t = 0; t < known.length; t++) {
    if (known[t]) {
      last = t;
      continue;
    }
    let next = t;
    while (next < known.length && !known[next]) next++;
    if (last < 0 && next === known.length) return out;
    const [a, b] = [last < 0 ? next : last, next === known.length ? last : next];
    const mix = b > a ? (t - a) / (b - a) : 0;
    for (let k = 0; k < width; k++) out[t * width + k] = x[a * width + k] * (1 - mix) + x[b * width + k] * mix;
  }
  return out;
}

/** The magnitudes of a damaged sound, those of lost frames on straight lines, in logarithms. */
export function straight(wav: Float64Array, gaps: Uint8Array): Float64Array {
  const share = knownShare(gaps);
  const size = toLength(magnitudes(stft(wav)), share).map((x) => Math.log(Math.max(LEAST, x)));
  return interpolate(size, [...share].map((x) => x >= HALF), BINS).map(Math.exp);
}

/** Magnitudes of frames that are known in part, as large as if they were known whole. */
const toLength = (size: Float64Array, share: Float64Array): Float64Array =>
  size.map((x, i) => x / Math.sqrt(Math.max(0.1, share[Math.floor(i / BINS)])));

/** How `known` would go on for `count` samples: linear prediction (Levinson 1947, Durbin 1960). */
export function ringing(known: Float64Array, count: number): Float64Array {
  const n = known.length;
  const most = 2 * known.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
  if (n < 64 || !most) return new Float64Array(count);
  const order = Math.min(ORDER, Math.floor(n / 3));
  const shown = known.map((x, i) => x * Math.sin((Math.PI * (i + 0.5)) / n));
  const lags = Float64Array.from({ length: order + 1 }, (_, k) => {
    let sum = 0;
    for (let i = k; i < n; i++) sum += shown[i] * shown[i - k];
    return sum;
  });
  lags[0] *= 1 + 1e-5;
  let filter = new Float64Array(order + 1);
  filter[0] = 1;
  for (let k = 1, left = lags[0]; k <= order; k++) {
    let turn = 0;
    for (let i = 0; i < k; i++) turn -= filter[i] * lags[k - i];
    turn /= left;
    const before = filter.slice();
    for (let i = 1; i <= k; i++) filter[i] += turn * before[k - i];
    left *= 1 - turn * turn;
  }
  const out = new Float64Array(order + count);
  out.set(known.subarray(n - order));
  for (let i = order; i < out.length; i++) {
    let sum = 0;
    for (let k = 1; k <= order; k++) sum -= filter[k] * out[i - k];
    out[i] = sum;
  }
  return out.subarray(order).map((x) => Math.min(most, Math.max(-most, x)));
}

/** Runs of lost samples: the first of each, and one past its last. */
function runs(gaps: Uint8Array): [number, number][] {
  const found: [number, number][] = [];
  for (let a = 0; a < gaps.length; a++) {
    if (!gaps[a]) continue;
    let b = a;
    while (b < gaps.length && gaps[b]) b++;
    found.push([a, b]);
    a = b;
  }
  return found;
}

/** Gaps filled from both sides by what rings on (Kauppinen and Roth 2002), and by a breath of noise. */
function rungOn(wav: Float64Array, gaps: Uint8Array, breath: Float64Array): Float64Array {
  const row = wav.map((x, i) => (gaps[i] ? 0 : x));
  const known = gaps.reduce((n, lost) => n + 1 - lost, 0);
  const level = Math.sqrt(row.reduce((sum, x) => sum + x * x, 0) / Math.max(1, known));
  const all = runs(gaps);
  all.forEach(([a, b], g) => {
    const first = Math.max(g ? all[g - 1][1] : 0, a - HEARD);
    const last = Math.min(g + 1 < all.length ? all[g + 1][0] : row.length, b + HEARD);
    const count = Math.min(b - a, RINGS);
    const forth = ringing(row.slice(first, a), count);
    const back = ringing(row.slice(b, last).reverse(), count);
    for (let i = 0; i < b - a; i++) {
      const fall = Math.cos(((Math.PI / 2) * (i + 0.5)) / (b - a)) ** 2;
      const [there, here] = [forth[i] ?? 0, back[b - a - 1 - i] ?? 0];
      row[a + i] = there * fall + here * (1 - fall) + BREATH * breath[a + i] * level;
    }
  });
  return row;
}

/** How many samples lie between the middle of each frame and the nearest known sample. */
function nearestKnown(gaps: Uint8Array): Float64Array {
  return Float64Array.from({ length: framesOf(gaps.length) }, (_, t) => {
    const middle = Math.min(gaps.length - 1, t * HOP);
    for (let d = 0; d < gaps.length; d++) {
      if (middle - d >= 0 && !gaps[middle - d]) return d;
      if (middle + d < gaps.length && !gaps[middle + d]) return d;
    }
    return gaps.length;
  });
}

/**
 * wav (n) and magnitudes for its frames -> wav (n), changed in the gaps alone: Griffin and Lim's rounds (1984) with
 * momentum (Perraudin et al. 2013, eq. 4), and known samples put back after each.
 */
export function assemble(wav: Float64Array, gaps: Uint8Array, size: Float64Array, breath: Float64Array): Float64Array {
  const free = knownShare(gaps).map((share) => (share < FREE ? 1 : 0));
  const put = (spec: Spectrum): Float64Array => {
    const made = istft(spec, wav.length);
    return wav.map((x, i) => (gaps[i] ? made[i] : x));
  };
  let now = stft(rungOn(wav, gaps, breath));
  const trust = nearestKnown(gaps).map((d) => TRUST * Math.exp(-((d / NEAR) ** 2)));
  const wanted = magnitudes(now).map((ring, i) => {
    const share = trust[Math.floor(i / BINS)];
    return Math.max(LEAST, size[i]) ** (1 - share) * Math.max(LEAST, ring) ** share;
  });
  /** `ahead` with the wanted magnitudes where frames see a gap, `now` elsewhere. */
  const held = (ahead: Spectrum): Spectrum => {
    const large = magnitudes(ahead);
    const part = (x: Float64Array, own: Float64Array): Float64Array =>
      x.map((v, i) => (free[Math.floor(i / BINS)] ? (wanted[i] * v) / large[i] : own[i]));
    return { re: part(ahead.re, now.re), im: part(ahead.im, now.im) };
  };
  let spec = held(now);
  let previous = spec;
  for (let round = 0; round < ROUNDS; round++) {
    now = stft(put(spec));
    const on = (x: Float64Array, before: Float64Array): Float64Array => x.map((v, i) => v + MOMENTUM * (v - before[i]));
    spec = held({ re: on(now.re, previous.re), im: on(now.im, previous.im) });
    previous = now;
  }
  return put(spec);
}

const LOW = 60; // Hz, lowest candidate of a pitch, ...
const HIGH = 500; // ... highest, ...
const COUNT = 160; // ... and their number
const JUMP = 16; // candidates that a path moves at most from frame to frame
const UNVOICED = 0.5; // score of a frame without pitch
const SWITCH = 0.25; // cost of a change between voiced and unvoiced
const SLOW = 0.06; // penalty of the lowest candidate
const COMPARED = 640; // samples that are compared with later ones: 40 ms
const LAGS = Math.ceil(SR / LOW) + 3;
const SIDE = 80; // samples on either side of a moving average that is subtracted

/** wav (n) -> scores of all candidates, frame by frame: one minus YIN's difference (de Cheveigne & Kawahara 2002, eq. 8). */
function scores(wav: Float64Array, count: number): Float64Array[] {
  const span = COMPARED + LAGS - 1;
  const left = SIDE + Math.floor((COMPARED + Math.floor((span - COMPARED) / 2) - HOP) / 2) + HOP / 2;
  const weights = Float64Array.from({ length: 2 * SIDE + 1 }, (_, i) => 1 - Math.cos((2 * Math.PI * (i + 1)) / (2 * SIDE + 2)));
  const total = weights.reduce((a, b) => a + b);
  const at = (i: number): number => (i >= 0 && i < wav.length ? wav[i] : 0);
  const calm = Float64Array.from({ length: (count - 1) * HOP + span }, (_, i) => {
    let mean = 0;
    for (let k = 0; k < weights.length; k++) mean += weights[k] * at(i + k - left);
    return at(i + SIDE - left) - mean / total;
  });
  return Array.from({ length: count }, (_, t) => {
    const frame = calm.slice(t * HOP, t * HOP + span);
    const mean = frame.reduce((a, b) => a + b) / span;
    frame.forEach((x, i) => (frame[i] = x - mean));
    const energy = new Float64Array(span + 1);
    frame.forEach((x, i) => (energy[i + 1] = energy[i] + x * x));
    const first = energy[COMPARED];
    const score = new Float64Array(LAGS);
    for (let lag = 0, sum = 0; lag < LAGS; lag++) {
      let common = 0;
      for (let i = 0; i < COMPARED; i++) common += frame[i] * frame[i + lag];
      const later = Math.max(0, energy[COMPARED + lag] - energy[lag]);
      const difference = Math.max(0, first + later - 2 * common);
      sum += difference;
      score[lag] = Math.max(-1, 1 - difference / (sum / (lag + 1) + 1e-5 * COMPARED));
    }
    return Float64Array.from({ length: COUNT }, (_, s) => {
      const period = SR / (LOW * (HIGH / LOW) ** (s / (COUNT - 1)));
      const lag = Math.floor(period);
      const part = period - lag;
      return first > 1e-6 * COMPARED ? score[lag] * (1 - part) + score[lag + 1] * part : 0; // silence has no pitch
    });
  });
}

/** The best path through scores: numbers of candidates, or COUNT where there is no pitch (Talkin 1995, section 3.3). */
function track(score: Float64Array[]): number[] {
  const cost = (2.4 * Math.log2(HIGH / LOW)) / (COUNT - 1);
  const plain = (now: Float64Array): Float64Array => now.map((x, s) => x - SLOW * (1 - s / (COUNT - 1)));
  let voiced = plain(score[0]);
  let unvoiced = UNVOICED;
  const loudest = (): number => voiced.reduce((best, x, s) => (x > voiced[best] ? s : best), 0);
  const back: { origin: Int32Array; ended: number }[] = [];
  for (const row of score.slice(1)) {
    const now = plain(row);
    const origin = new Int32Array(COUNT);
    const next = new Float64Array(COUNT);
    for (let s = 0; s < COUNT; s++) {
      let best = -Infinity;
      for (let from = Math.max(0, s - JUMP); from <= Math.min(COUNT - 1, s + JUMP); from++) {
        const value = voiced[from] - cost * Math.abs(from - s);
        if (value > best) [best, origin[s]] = [value, from];
      }
      if (unvoiced - SWITCH > best) [best, origin[s]] = [unvoiced - SWITCH, COUNT];
      next[s] = best + now[s];
    }
    const from = loudest();
    const ends = voiced[from] - SWITCH > unvoiced;
    back.push({ origin, ended: ends ? from : COUNT });
    unvoiced = Math.max(unvoiced, voiced[from] - SWITCH) + UNVOICED;
    voiced = next;
  }
  const path = [unvoiced > voiced[loudest()] ? COUNT : loudest()];
  for (const { origin, ended } of back.reverse()) path.push(path.at(-1) === COUNT ? ended : origin[path.at(-1) ?? 0]);
  return path.reverse();
}

/** wav (n) -> octaves above 60 Hz of each frame, -1 where there is no voice. */
export function octaves(wav: Float64Array): Float64Array {
  const score = scores(wav, framesOf(wav.length));
  return Float64Array.from(track(score), (best, t) => {
    if (best === COUNT) return -1;
    const at = Math.min(COUNT - 2, Math.max(1, best));
    const [a, b, c] = [score[t][at - 1], score[t][at], score[t][at + 1]];
    const off = Math.min(0.5, Math.max(-0.5, (0.5 * (a - c)) / Math.min(-1e-6, a - 2 * b + c)));
    return ((at + off) * Math.log2(HIGH / LOW)) / (COUNT - 1);
  });
}

/** Octaves, and whether there is a voice, both on straight lines where they are not known. */
function onLines(heard: Float64Array, share: Float64Array): Float32Array {
  const known = [...share].map((x) => x >= 0.85);
  const sings = known.map((x, t) => x && heard[t] >= 0);
  const line = sings.includes(true) ? interpolate(heard, sings, 1) : heard.map(() => 1);
  return Float32Array.from([...line, ...interpolate(heard.map((x) => (x >= 0 ? 1 : 0)), known, 1)]);
}

/** (frames, width) -> (width, frames). */
function turned(x: Float64Array, width: number, scale: number): Float32Array {
  const count = x.length / width;
  return Float32Array.from({ length: x.length }, (_, i) => x[(i % count) * width + Math.floor(i / count)] * scale);
}

/** Noise for phases that nothing else decides: the same each time. */
export function breathOf(n: number): Float64Array {
  let state = 1;
  const uniform = (): number => (state = (state * 48271) % 2147483647) / 2147483647;
  return Float64Array.from({ length: n }, () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
}

/** dB of what a denoiser kept over what it took away, where nothing is lost. */
function speechOverNoise(wav: Float64Array, noisy: Float64Array, gaps: Uint8Array): number {
  let [kept, taken] = [1e-12, 1e-12];
  wav.forEach((x, i) => gaps[i] || ((kept += x * x), (taken += (noisy[i] - x) ** 2)));
  return 10 * Math.log10(kept / taken);
}

/**
 * wav (n), gaps (n) -> wav (n) with its gaps filled with what the network expects; where noise was far louder than speech
 * in `noisy`, with straight lines.
 */
export async function fill(
  net: Graph,
  sound: Float64Array,
  noisy: Float64Array,
  gaps: Uint8Array,
  breath = breathOf(sound.length),
): Promise<Float64Array> {
  const wav = sound.map((x, i) => (gaps[i] ? 0 : x));
  if (speechOverNoise(wav, noisy, gaps) < DEEP) return assemble(wav, gaps, straight(wav, gaps), breath);
  const known = gaps.reduce((n, lost) => n + 1 - lost, 0);
  const gain = RMS / Math.sqrt(Math.max(1e-10, wav.reduce((sum, x) => sum + x * x, 0) / Math.max(1, known)));
  const loud = wav.map((x) => x * gain);
  const share = knownShare(gaps);
  const count = share.length;
  const size = await net.call("size", {
    seen: { data: turned(toLength(magnitudes(stft(loud)), share), BINS, 1 / UNIT), dims: [1, BINS, count] },
    lines: { data: turned(straight(loud, gaps), BINS, 1 / UNIT), dims: [1, BINS, count] },
    share: { data: Float32Array.from(share), dims: [1, count] },
    pitch: { data: onLines(octaves(loud), share), dims: [1, 2, count] },
    noise: { data: new Float32Array(48 * count), dims: [1, 48, count] }, // one step hardly depends on it
  });
  const wanted = new Float64Array(size.length);
  size.forEach((x, i) => (wanted[(i % count) * BINS + Math.floor(i / count)] = (Math.exp(x) * UNIT) / gain));
  return assemble(wav, gaps, wanted, breath);
}
