/**
 * Another sample rate for sound that arrives in blocks: wavelldm/light/resample.py, line by line.
 *
 * It runs in the audio thread too, so it makes no arrays once it has been warmed up: results lie in `out`.
 */
import { Sentence } from "./errors";

const ZEROS = 64; // zero crossings of the sinc on either side: at 16 kHz the filter looks 4 ms ahead
const KAISER = 7.857; // shape of its window: what would alias is 80 dB down
const CUTOFF = 0.9608; // of the lower Nyquist frequency
const MOST_WEIGHTS = 1 << 20; // that a filter with all its phases may have; where it would have more, interpolate
const MOST_PHASES = 512;

export function checkRate(sr: number): number {
  if (!(Number.isInteger(sr) && sr >= 4000 && sr <= 384000)) {
    throw new Sentence(`The sound has ${sr} samples a second. Convert it to a rate between 4,000 and 384,000 Hz.`);
  }
  return sr;
}

/** The greatest that two whole numbers have in common (Euclid). */
export const divisor = (a: number, b: number): number => (b ? divisor(b, a % b) : a);

/** The modified Bessel function of order 0, for the Kaiser window. */
function bessel(x: number): number {
  let sum = 1;
  for (let k = 1, term = 1; term > sum * 1e-17; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}

interface Phases {
  rows: Float32Array; // (count, taps)
  exact: boolean; // one row for each phase that occurs; else rows at equal distances, to interpolate between
  last: number; // number of the last row
}

const known = new Map<string, Phases>();

function phases(up: number, down: number): Phases {
  const key = `${up}/${down}`;
  const found = known.get(key);
  if (found) return found;
  const half = Math.ceil(ZEROS * Math.max(1, down / up));
  const band = CUTOFF * Math.min(1, up / down);
  const exact = up * (2 * half + down) <= MOST_WEIGHTS;
  const count = exact ? up : Math.max(16, Math.ceil(MOST_PHASES * Math.min(1, up / down)));
  const last = exact ? count - 1 : count;
  const taps = 2 * half;
  const rows = new Float32Array((last + 1) * taps);
  const row = new Float64Array(taps);
  for (let p = 0; p <= last; p++) {
    const part = exact ? ((p * down) % up) / up : p / count;
    let sum = 0;
    for (let i = 0; i < taps; i++) {
      const t = 1 - half + i - part; // input samples
      const x = Math.PI * band * t;
      const sinc = x === 0 ? 1 : Math.sin(x) / x;
      row[i] = sinc * bessel(KAISER * Math.sqrt(Math.max(0, 1 - (t / half) ** 2)));
      sum += row[i];
    }
    for (let i = 0; i < taps; i++) rows[p * taps + i] = row[i] / sum;
  }
  const made = { rows, exact, last };
  known.set(key, made);
  return made;
}

/** Blocks at `srIn` -> blocks at `srOut`, in all ceil(N * srOut / srIn) samples. */
export class Resampler {
  readonly lookahead: number; // input samples behind a moment that must be there before it comes out
  out: Float32Array[]; // (channels, what the last call gave)
  private readonly up: number;
  private readonly down: number;
  private seen = 0;
  private made = 0;
  private held: Float32Array[]; // input from sample `first` on, with zeros before sample 0
  private have = 0;
  private first: number;

  constructor(srIn: number, srOut: number, readonly channels = 1, room = 4096) {
    const d = divisor(checkRate(srIn), checkRate(srOut));
    this.up = srOut / d;
    this.down = srIn / d;
    this.lookahead = srIn === srOut ? 0 : Math.ceil(ZEROS * Math.max(1, srIn / srOut));
    this.first = 1 - this.lookahead;
    this.have = Math.max(0, this.lookahead - 1);
    this.held = Array.from({ length: channels }, () => new Float32Array(this.have + room));
    this.out = Array.from({ length: channels }, () => new Float32Array(Math.ceil((room * srOut) / srIn) + 2));
    if (this.lookahead) phases(this.up, this.down);
  }

  /** Takes the first `n` samples of each row of `block`; returns how many samples lie in `out`. */
  push(block: Float32Array[], n = block[0].length): number {
    this.seen += n;
    if (!this.lookahead) {
      this.ensure(this.out, n, 0);
      for (let c = 0; c < this.channels; c++) for (let i = 0; i < n; i++) this.out[c][i] = block[c][i];
      return n;
    }
    this.ensure(this.held, this.have + n, this.have);
    for (let c = 0; c < this.channels; c++) {
      const to = this.held[c];
      const from = block[c];
      for (let i = 0; i < n; i++) to[this.have + i] = from[i];
    }
    this.have += n;
    return this.until(Math.max(0, Math.ceil(((this.seen - this.lookahead) * this.up) / this.down)));
  }

  /** The last samples, as if zeros followed. */
  finish(): number {
    if (!this.lookahead || !this.seen) return 0;
    this.ensure(this.held, this.have + this.lookahead, this.have);
    for (const row of this.held) row.fill(0, this.have, this.have + this.lookahead);
    this.have += this.lookahead;
    return this.until(Math.ceil((this.seen * this.up) / this.down));
  }

  /** Like `push` (and, if `last`, `finish`), but with arrays of its own. */
  through(block: Float32Array[], last = false): Float32Array[] {
    let n = this.push(block);
    const first = this.out.map((row) => row.slice(0, n));
    if (!last) return first;
    n = this.finish();
    return first.map((row, c) => {
      const whole = new Float32Array(row.length + n);
      whole.set(row);
      whole.set(this.out[c].subarray(0, n), row.length);
      return whole;
    });
  }

  private until(end: number): number {
    const count = end - this.made;
    if (count <= 0) return 0;
    const { rows, exact, last } = phases(this.up, this.down);
    const taps = 2 * this.lookahead;
    this.ensure(this.out, count, 0);
    for (let c = 0; c < this.channels; c++) {
      const x = this.held[c];
      const y = this.out[c];
      for (let i = 0; i < count; i++) {
        const j = this.made + i;
        const phase = (j * this.down) % this.up;
        const at = (j * this.down - phase) / this.up - this.lookahead + 1 - this.first;
        let sum = 0;
        if (exact) {
          const row = (j % this.up) * taps;
          for (let k = 0; k < taps; k++) sum += rows[row + k] * x[at + k];
        } else {
          const place = (phase / this.up) * last;
          const low = Math.floor(place);
          const part = place - low;
          const row = low * taps;
          for (let k = 0; k < taps; k++) sum += ((1 - part) * rows[row + k] + part * rows[row + taps + k]) * x[at + k];
        }
        y[i] = sum;
      }
    }
    this.made = end;
    const drop = Math.min(
      this.have,
      Math.floor((end * this.down) / this.up) - this.lookahead + 1 - this.first,
    );
    for (const row of this.held) row.copyWithin(0, drop, this.have);
    this.have -= drop;
    this.first += drop;
    return count;
  }

  /** Room for `size` samples in each row, of which the first `keep` stay. */
  private ensure(arrays: Float32Array[], size: number, keep: number): void {
    for (let c = 0; c < arrays.length; c++) {
      if (arrays[c].length >= size) continue;
      const wider = new Float32Array(Math.ceil(1.25 * size));
      wider.set(arrays[c].subarray(0, keep));
      arrays[c] = wider;
    }
  }
}
