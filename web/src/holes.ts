/**
 * Stretches of a recording that were lost, found in what is left: wavelldm/light/holes.py, which says how and why.
 *
 * The level of every millisecond is compared with that of the five before and the eight after. Silence is looked for in
 * the differences between samples, faint noise in the samples themselves.
 */

const LOWEST_DB = -160; // classes of 1 dB in which levels are counted: where they begin, ...
const CLASSES = 200; // ... and how many there are
const EMPTY = 1e-14; // power of nothing
const SHORTEST = 8; // milliseconds of a fall
const LONGEST = 600; // longer ones are pauses
const BEFORE = 5; // milliseconds beside an edge: what the sound was, ...
const AFTER = 8; // ... and for how long it must have been gone
const SLOPES = 6; // milliseconds that an edge may take
const FALL_DB = [25, 20]; // how far the level falls at least, to silence and to noise
const FAINT = 0.12; // peaks of a quarter of a millisecond beside a gap against what lies beyond: faded, ...
const WHOLE = 0.8; // ... not faded
const LOUD = 0.95; // share of the milliseconds that are no louder than the loudest of a recording, ...
const FLOOR = 0.1; // ... and its floor
const DEEP_DB = -15; // how far below the floor of a recording only a gap falls
const EXACT = 0.7; // share of a gap that has one and the same value
const AMID_DB = -30; // silence: what is beside it against the loudest, ...
const PAUSE_DB = -8; // ... or against the floor, ...
const COARSE_DB = 13; // ... and against one step of the samples
const SEVERAL = 2; // a gate: so many silences at least; ...
const MOST = 0.9; // ... share of them ...
const ALIKE_DB = 2; // ... that begin in sound as quiet ...
const GATED = 0.3; // ... as this share of the recording
const STEEP = 2; // noise: milliseconds within which it falls, ...
const FAR = 20; // ... those on either side that are alike ...
const EVEN_DB = 8; // ... up to so many dB, ...
const RAW_DB = 25; // ... and how far it is below all of these
const NOISES = [[-10, 25, 15], [-25, 22, DEEP_DB]]; // beside it against the loudest, its fall, and above the floor

interface Hole {
  start: number; // samples
  end: number;
  silent: boolean; // one and the same value
  beside: number; // dB, of the quieter side
  before: number; // dB, of the side where it begins
  core: number; // dB, of the loudest millisecond inside
  steep: number; // by how much it falls, on the less steep side
  raw: number; // by how much it is below what is beside it
  even: number; // by how much what is nearest beside it differs from what is further away
}

const db = (power: number): number => 10 * Math.log10(power + EMPTY);
const levelClass = (power: number): number =>
  Math.min(CLASSES - 1, Math.max(0, Math.trunc(10 * Math.log10(power) - LOWEST_DB)));

/** The level in dB that a share does not pass, from the counts of its classes. */
function levelBelow(counts: Float64Array, share: number): number {
  const wanted = share * counts.reduce((a, b) => a + b, 0);
  let [total, at] = [counts[0], 0];
  while (total < wanted) total += counts[++at];
  return LOWEST_DB + at + 0.5;
}

function most(x: ArrayLike<number>, from: number, to: number, first: number): number {
  let found = first;
  for (let i = from; i < to; i++) if (x[i] > found) found = x[i];
  return found;
}

const mean = (x: Float64Array): number => x.reduce((a, b) => a + b, 0) / x.length;
function variance(sound: Float32Array): number {
  const x = Float64Array.from(sound);
  const middle = mean(x);
  return mean(x.map((v) => (v - middle) ** 2));
}

/** How far the level falls at each millisecond if it is the first quiet one, and what it was before, for each slope. */
function depths(power: Float64Array): { fall: Float64Array[]; was: Float64Array[] } {
  const count = power.length;
  const total = new Float64Array(count + 1);
  power.forEach((x, k) => (total[k + 1] = total[k] + x));
  const after = new Float64Array(count).fill(Infinity);
  for (let k = 0; k + AFTER <= count; k++) after[k] = most(power, k, k + AFTER, 0);
  const slopes = Array.from({ length: SLOPES }, (_, i) => BEFORE + 1 + i);
  const was = slopes.map((skip) =>
    Float64Array.from({ length: count }, (_, k) =>
      k < skip ? EMPTY : Math.max(EMPTY, (total[k - skip + BEFORE] - total[k - skip]) / BEFORE),
    ),
  );
  const fall = was.map((row) => row.map((x, k) => 10 * Math.log10(Math.max(x / after[k], EMPTY))));
  return { fall, was };
}

const highest = (rows: Float64Array[], k: number): number => rows.reduce((best, row) => Math.max(best, row[k]), 0);
const anyAbove = (rows: Float64Array[], least: number): Uint8Array =>
  Uint8Array.from(rows[0], (_, k) => (rows.some((row) => row[k] > least) ? 1 : 0));

/** By how many dB what is nearest, power (K) nearest first, differs from what is beyond. */
const uneven = (power: Float64Array): number =>
  power.length > BEFORE
    ? Math.abs(db(mean(power.subarray(0, BEFORE))) - db(mean(power.subarray(BEFORE, BEFORE + FAR))))
    : 0;

/** Collects holes of one channel, window by window; which of them are gaps is decided at the end. */
export class Holes {
  private readonly hop: number; // samples of a millisecond
  private readonly step: number;
  private readonly levels = [new Float64Array(CLASSES), new Float64Array(CLASSES)]; // of differences, of samples
  private grain = Infinity; // the least difference between two samples
  private readonly found: Hole[] = [];

  constructor(sr: number) {
    this.hop = Math.max(1, Math.round(sr / 1000));
    this.step = Math.max(1, Math.round(sr / 16000));
  }

  /** sound (n), of which `count` milliseconds after `before` ones are new; these begin at `first` of the recording. */
  look(sound: Float32Array, before: number, count: number, first: number): void {
    const change = sound.map((x, i) => (i < this.step ? 0 : x - sound[i - this.step]));
    const powers = [this.power(change), this.power(sound)];
    const changes: number[] = [];
    for (let i = 1; i < sound.length; i++) {
      if (sound[i] === sound[i - 1]) continue;
      changes.push(i);
      this.grain = Math.min(this.grain, Math.abs(sound[i] - sound[i - 1]));
    }
    const outside = new Uint8Array(powers[0].length).fill(1);
    const [begin, end] = [before * this.hop, (before + count) * this.hop];
    powers.forEach((power, kind) => {
      for (const hole of this.falls(sound, power, changes, outside.slice(), kind === 0)) {
        if (hole.silent) outside.fill(0, Math.floor(hole.start / this.hop), Math.ceil(hole.end / this.hop));
        if (hole.start < begin || hole.start >= end) continue;
        const moved = (first - before) * this.hop;
        this.found.push({ ...hole, start: hole.start + moved, end: hole.end + moved });
      }
    });
    powers.forEach((power, kind) => {
      for (let k = before; k < Math.min(power.length, before + count); k++) {
        if (outside[k]) this.levels[kind][levelClass(power[k])]++;
      }
    });
  }

  /** Those holes that are gaps, each the first sample and one past the last. */
  gaps(): [number, number][] {
    if (!this.levels.some((row) => row.some((n) => n > 0))) return [];
    let found = this.found.filter((hole) => this.isGap(hole));
    if (this.gated(found.filter((hole) => hole.silent).map((hole) => hole.before))) {
      found = found.filter((hole) => !hole.silent);
    }
    return found.map(({ start, end }): [number, number] => [start, end]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  }

  /** Whether silences with these levels before them come from a gate: hardly anything else is as quiet. */
  private gated(before: number[]): boolean {
    if (before.length < SEVERAL) return false;
    const sorted = [...before].sort((a, b) => a - b);
    const place = MOST * (sorted.length - 1);
    const low = Math.floor(place);
    const level = sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]) + ALIKE_DB;
    const quiet = this.levels[0].subarray(0, levelClass(10 ** (level / 10)) + 1).reduce((a, b) => a + b, 0);
    return quiet < GATED * this.levels[0].reduce((a, b) => a + b, 0);
  }

  private isGap(hole: Hole): boolean {
    const levels = this.levels[hole.silent ? 0 : 1];
    const floor = levelBelow(levels, FLOOR);
    const amid = hole.beside - levelBelow(levels, LOUD);
    const above = hole.core - floor;
    if (hole.silent) {
      const pause = above < DEEP_DB && hole.beside > floor + PAUSE_DB;
      return (amid > AMID_DB || pause) && hole.beside > db(this.grain ** 2) + COARSE_DB;
    }
    const falls = NOISES.some(([a, b, c]) => amid > a && hole.steep > b && above < c);
    return falls && hole.raw > RAW_DB && hole.even < EVEN_DB;
  }

  /** Mean square of each whole millisecond. */
  private power(sound: Float32Array): Float64Array {
    return Float64Array.from({ length: Math.floor(sound.length / this.hop) }, (_, k) => {
      let sum = 0;
      for (let i = k * this.hop; i < (k + 1) * this.hop; i++) sum += sound[i] * sound[i];
      return sum / this.hop + EMPTY;
    });
  }

  /** The falls to silence, or to noise, where it is free; changes: samples that differ from the one before. */
  private falls(
    sound: Float32Array,
    power: Float64Array,
    changes: number[],
    free: Uint8Array,
    silent: boolean,
  ): Hole[] {
    const [hop, least] = [this.hop, FALL_DB[silent ? 0 : 1]];
    const { fall, was } = depths(power);
    const back = depths(power.slice().reverse());
    const [rise, will] = [back.fall, back.was].map((rows) => rows.map((row) => row.reverse()));
    const [falling, rising] = [anyAbove(fall, least), anyAbove(rise, least)];
    const holes: Hole[] = [];
    for (let a = 0, b = 0; a < falling.length; a = b + 1) {
      b = a;
      while (falling[b]) b++;
      let [k, q] = [a, -1];
      for (; k < b; k++) {
        q = free[k] ? this.end(power, k, highest(was, k), rising, will, least) : -1;
        if (q >= 0) break;
      }
      if (q < 0) continue;
      let [start, end, exact] = this.edges(sound, changes, k, q);
      if (exact !== silent) continue;
      free.fill(0, k, q + 1);
      const beside = [sound.slice(Math.max(0, start - FAR * hop), start).reverse(), sound.slice(end, end + FAR * hop)];
      const sides = [highest(was, k), highest(will, q)];
      const [side, before, core] = [Math.min(...sides), sides[0], most(power, k + 1, q, 0)].map(db);
      const hole: Hole = { start, end, silent, beside: side, before, core, steep: 0, raw: 0, even: 0 };
      if (!silent) {
        const inside = sound.subarray(start + hop, end - hop);
        hole.raw = Math.min(...beside.map((x) => db(variance(x)))) - db(variance(inside));
        hole.even = Math.max(uneven(power.slice(0, k - 1).reverse()), uneven(power.slice(q + 2)));
        const steepest = (rows: Float64Array[], from: number): number =>
          Math.max(...rows.slice(0, STEEP).map((row) => most(row, from, from + 2, -Infinity)));
        hole.steep = Math.min(steepest(fall, k), steepest(rise, q - 1));
      }
      const sorted = sound.slice(start, end).sort();
      const middle = (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
      hole.start -= this.faded(beside[0].map((x) => x - middle));
      hole.end += this.faded(beside[1].map((x) => x - middle));
      holes.push(hole);
    }
    return holes;
  }

  /** The last quiet millisecond of a hole whose first is k, or -1 if it has no end or is too short or long. */
  private end(
    power: Float64Array,
    k: number,
    was: number,
    rising: Uint8Array,
    will: Float64Array[],
    least: number,
  ): number {
    const share = 10 ** (-least / 10);
    let [last, previous, loudest] = [-1, -1, 0];
    let seen = k; // up to where the loudest is known
    for (let q = k + SHORTEST - 1; q < Math.min(rising.length, k + LONGEST); q++) {
      if (!rising[q]) {
        if (previous >= 0) break; // the first rise is over
        continue;
      }
      previous = q;
      loudest = most(power, seen, q + 1, loudest);
      seen = q + 1;
      if (loudest < share * Math.min(was, highest(will, q))) last = q;
    }
    return last;
  }

  /** The first sample of a hole from millisecond k to q, one past the last, and whether it has only one value. */
  private edges(sound: Float32Array, changes: number[], k: number, q: number): [number, number, boolean] {
    const hop = this.hop;
    const [a, b] = [k * hop, (q + 1) * hop];
    const middle = Math.floor((a + b) / 2);
    let [from, to] = [0, changes.length]; // how many changes lie up to the middle
    while (from < to) {
      const half = (from + to) >> 1;
      if (changes[half] <= middle) from = half + 1;
      else to = half;
    }
    const [low, high] = [from ? changes[from - 1] : 0, changes[from] ?? sound.length];
    const near = SLOPES * hop;
    if (high - low > EXACT * (b - a) && low < a + near && high > b - near) return [low, high, true];
    const jump = (i: number): number => Math.abs(sound[i] - sound[i - 1]);
    let inside = 0;
    for (let i = a + hop; i < b - hop; i++) inside = Math.max(inside, jump(i));
    let [start, end] = [a, b];
    for (let i = Math.max(1, a - 2 * hop); i < a + hop; i++) if (jump(i) > 2 * inside) start = i;
    for (let i = Math.min(sound.length, b + 2 * hop) - 1; i >= b - hop; i--) if (jump(i) > 2 * inside) end = i;
    return [start, end, false];
  }

  /** How many samples beside a hole, nearest first, are faded: first faint, then ever louder. */
  private faded(beside: Float32Array): number {
    const part = Math.max(1, Math.floor(this.hop / 4));
    const far = beside.subarray(SLOPES * this.hop, (SLOPES + BEFORE) * this.hop);
    if (!far.some((x) => x !== 0)) return 0;
    const spread = Math.sqrt(variance(far));
    const count = Math.floor((SLOPES * this.hop) / part);
    for (let i = 0; i < count; i++) {
      let peak = 0;
      for (let j = i * part; j < (i + 1) * part; j++) peak = Math.max(peak, Math.abs(beside[j]));
      if (i === 0 && !(peak < FAINT * spread)) return 0;
      if (peak > WHOLE * spread) return i * part;
    }
    return 0;
  }
}
