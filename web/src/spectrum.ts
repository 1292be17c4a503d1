/** Pictures of sound: a spectrogram whose columns lie as far apart as the recording needs. */

const SIZE = 1024; // samples of a frame
const BANDS = 160; // rows of a picture
const LOOKS = 4; // frames that a column is the mean of, where columns lie far apart
const QUIET = -100; // dB, black
const LOUD = -20; // dB, white

/** Fast Fourier transform in place, radix 2 (Cooley & Tukey 1965). */
export function fft(re: Float32Array | Float64Array, im: Float32Array | Float64Array): void {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]];
    }
  }
  for (let size = 2; size <= n; size *= 2) {
    for (let k = 0; k < size / 2; k++) {
      const c = Math.cos((2 * Math.PI * k) / size);
      const s = -Math.sin((2 * Math.PI * k) / size);
      for (let a = k; a < n; a += size) {
        const b = a + size / 2;
        const x = re[b] * c - im[b] * s;
        const y = re[b] * s + im[b] * c;
        re[b] = re[a] - x;
        im[b] = im[a] - y;
        re[a] += x;
        im[a] += y;
      }
    }
  }
}

/** The same for sizes with no factor above 5: mixed radices. */
export class Fourier {
  private readonly factors: number[] = [];
  private readonly cos: Float64Array;
  private readonly sin: Float64Array;
  private readonly re: Float64Array;
  private readonly im: Float64Array;

  constructor(private readonly n: number) {
    let rest = n;
    for (const factor of [2, 3, 5]) for (; rest % factor === 0; rest /= factor) this.factors.push(factor);
    const angle = (k: number): number => (2 * Math.PI * k) / n;
    this.cos = Float64Array.from({ length: n }, (_, k) => Math.cos(angle(k)));
    this.sin = Float64Array.from({ length: n }, (_, k) => -Math.sin(angle(k)));
    [this.re, this.im] = [new Float64Array(n), new Float64Array(n)];
  }

  /** In place. */
  run(re: Float64Array, im: Float64Array): void {
    this.part(re, im, this.n, 1, 0, 0, 0);
    re.set(this.re);
    im.set(this.im);
  }

  /** Every `stride`-th of the numbers from `from` on, `size` of them, transformed to the place `to`. */
  private part(
    re: Float64Array,
    im: Float64Array,
    size: number,
    stride: number,
    from: number,
    to: number,
    level: number,
  ): void {
    if (size === 1) {
      [this.re[to], this.im[to]] = [re[from], im[from]];
      return;
    }
    const p = this.factors[level];
    const m = size / p;
    for (let q = 0; q < p; q++) this.part(re, im, m, stride * p, from + q * stride, to + q * m, level + 1);
    const { cos, sin, n } = this;
    const [x, y] = [new Float64Array(p), new Float64Array(p)];
    for (let u = 0; u < m; u++) {
      for (let q = 0; q < p; q++) [x[q], y[q]] = [this.re[to + u + q * m], this.im[to + u + q * m]];
      for (let r = 0; r < p; r++) {
        let [a, b] = [x[0], y[0]];
        for (let q = 1, w = 0; q < p; q++) {
          w = (w + stride * (u + r * m)) % n;
          a += x[q] * cos[w] - y[q] * sin[w];
          b += x[q] * sin[w] + y[q] * cos[w];
        }
        [this.re[to + u + r * m], this.im[to + u + r * m]] = [a, b];
      }
    }
  }
}

export interface Picture {
  columns: number;
  bands: number;
  values: Uint8Array; // (columns, bands): 0 black, 255 white
}

const melOf = (hertz: number): number => Math.log(1 + hertz / 700);
const hertzOf = (mel: number): number => 700 * (Math.exp(mel) - 1);
export const top = (sr: number): number => Math.min(sr / 2, 12000); // of a picture, in Hz

/** Where a frequency lies in a picture, 0 at the bottom and 1 at the top. */
export const placeOf = (hertz: number, sr: number): number => melOf(hertz) / melOf(top(sr));

/** For each band of a picture the first and the last bin of a spectrum of `bins` bins from 0 to sr / 2. */
export function bandsOf(sr: number, bins: number, bands = BANDS): { first: number; last: number }[] {
  const bin = (place: number): number => (hertzOf(place * melOf(top(sr))) / (sr / 2)) * (bins - 1);
  return Array.from({ length: bands }, (_, b) => {
    const first = Math.round(bin(b / bands));
    return { first, last: Math.max(first, Math.round(bin((b + 1) / bands)) - 1) };
  });
}

/** A picture of sound that arrives block by block. */
export class Painter {
  readonly picture: Picture;
  private held: Float32Array = new Float32Array(0);
  private first = 0; // sample that `held` begins with
  private looked = 0; // frames
  private readonly step: number; // samples from frame to frame
  private readonly window = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
  private readonly bands: { first: number; last: number }[];
  private readonly powers: Float64Array;
  private readonly looks: number;

  constructor(sr: number, frames: number, columns = 800) {
    const count = Math.max(1, Math.min(columns, Math.floor(frames / 128)));
    this.picture = { columns: count, bands: BANDS, values: new Uint8Array(count * BANDS) };
    this.looks = frames / count > 2 * SIZE ? LOOKS : 1;
    this.step = frames / count / this.looks;
    this.bands = bandsOf(sr, SIZE / 2 + 1);
    this.powers = new Float64Array(BANDS);
  }

  add(block: Float32Array[], last = false): void {
    const n = block[0].length;
    const more = new Float32Array(this.held.length + n + (last ? SIZE : 0));
    more.set(this.held);
    for (let i = 0; i < n; i++) {
      let sum = 0;
      for (const row of block) sum += row[i];
      more[this.held.length + i] = sum / block.length;
    }
    const re = new Float32Array(SIZE);
    const im = new Float32Array(SIZE);
    const { columns, values } = this.picture;
    for (; this.looked < columns * this.looks; this.looked++) {
      const at = Math.floor(this.looked * this.step) - this.first;
      if (at + SIZE > more.length) break;
      for (let i = 0; i < SIZE; i++) re[i] = more[at + i] * this.window[i];
      im.fill(0);
      fft(re, im);
      this.bands.forEach(({ first, last: end }, b) => {
        let power = 0;
        for (let k = first; k <= end; k++) power = Math.max(power, re[k] ** 2 + im[k] ** 2);
        this.powers[b] += power / this.looks;
      });
      if ((this.looked + 1) % this.looks) continue;
      const column = Math.floor(this.looked / this.looks);
      for (let b = 0; b < BANDS; b++) {
        const db = 10 * Math.log10(this.powers[b] + 1e-20) - 20 * Math.log10(SIZE / 4);
        values[column * BANDS + b] = Math.max(0, Math.min(255, (255 * (db - QUIET)) / (LOUD - QUIET)));
      }
      this.powers.fill(0);
    }
    const used = Math.min(more.length, Math.max(0, Math.floor(this.looked * this.step) - this.first));
    this.held = more.slice(used);
    this.first += used;
  }
}
