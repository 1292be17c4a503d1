/** What is damaged: lost stretches, and peaks that an overload took. wavelldm/light/find.py says how and why. */
import { Loudest, type Curve } from "./bend";
import { windows } from "./blocks";
import { Holes } from "./holes";

const WINDOW = 8000; // milliseconds looked at together, and ...
const MARGIN = 700; // ... on either side of them
const SMALLEST = 1e-5; // values that are counted: from ...
const LARGEST = 16; // ... to, ...
const RATIO = 1e-3; // ... in classes so far apart
const HEAP = 3e-3; // how wide a heap is, of its value
const LEAST = 10; // samples in a heap, ...
const SHARE = 2e-4; // ... of all, ...
const TIMES = 6; // ... and how often it holds what lies beside it
const NARROW = 0.98; // from which share of its value on its surroundings are looked at
const NEAR = 0.9;
const WIDE = 0.5;
const STEPS = 3; // values that these hold at least
const TONE = 1.5; // how much denser values lie near a heap than further down, at most
const FEW = 4; // samples at the same ceiling on the other side, ...
const ALIKE = 0.01; // ... and how near it is

/** Of one channel. */
export interface Damage {
  gaps: [number, number][]; // samples, the first and one past the last
  peaks: Peaks;
}

/** What an overload did to them. */
export interface Peaks {
  ceiling: [number, number] | null; // samples at or beyond them were cut off; a side that was not is infinite
  curve: Curve | null; // what bent them, where it was soft
}

/** `block(from, count)` gives samples of all channels, fewer at the end. */
export async function findDamage(
  sr: number,
  frames: number,
  channels: number,
  block: (from: number, count: number) => Promise<Float32Array[]>,
): Promise<Damage[]> {
  const hop = Math.max(1, Math.round(sr / 1000));
  const all = Array.from({ length: channels }, () => ({
    holes: new Holes(sr),
    values: new Values(),
    loudest: new Loudest(sr),
  }));
  let first = 0; // milliseconds
  for (const { at, length, before, count } of windows(frames, hop, MARGIN, WINDOW)) {
    (await block(at, length)).forEach((row, c) => {
      all[c].holes.look(row, before, count, first);
      const fresh = row.subarray(before * hop, (before + count) * hop);
      all[c].values.look(fresh);
      all[c].loudest.push(fresh);
    });
    first += count;
  }
  return all.map(({ holes, values, loudest }) => {
    const ceiling = values.ceiling();
    return { gaps: holes.gaps(), peaks: { ceiling, curve: ceiling ? null : loudest.curve() } };
  });
}

const total = (x: Float64Array, from: number, to = x.length): number =>
  x.subarray(Math.max(0, from), to).reduce((a, b) => a + b, 0);
function lastOf(x: Float64Array): number {
  let at = x.length - 1;
  while (at >= 0 && !x[at]) at--;
  return at;
}
const valueOf = (place: number): number => SMALLEST * Math.exp(place * RATIO);

/** How often each value was there, in classes a thousandth apart. */
class Values {
  private readonly counts: Float64Array[]; // below and above zero
  private samples = 0;

  constructor() {
    const size = Math.ceil(Math.log(LARGEST / SMALLEST) / RATIO);
    this.counts = [new Float64Array(size), new Float64Array(size)];
  }

  look(sound: Float32Array): void {
    this.samples += sound.length;
    const f = Math.fround; // as Python computes it
    for (const x of sound) {
      if (Math.abs(x) <= f(SMALLEST)) continue;
      const place = Math.trunc(f(f(Math.log(f(Math.abs(x) / f(SMALLEST)))) / f(RATIO)));
      const side = this.counts[x < 0 ? 0 : 1];
      side[Math.min(side.length - 1, place)]++;
    }
  }

  ceiling(): [number, number] | null {
    const found = this.counts.map((row) => heap(row, this.samples));
    const [low, high] = found.map((value, side) => value ?? like(this.counts[side], found[1 - side]));
    return low === null && high === null ? null : [-(low ?? Infinity), high ?? Infinity];
  }
}

/** The value at which samples are heaped up at the upper end of their classes, or null. */
function heap(counts: Float64Array, samples: number): number | null {
  const top = lastOf(counts);
  const width = Math.round(HEAP / RATIO);
  const below = top < 0 ? -1 : lastOf(counts.subarray(0, Math.max(0, top - width)));
  if (below < 0) return null;
  const grain = Math.max(HEAP, 1 - Math.exp((below - top) * RATIO)); // how far apart two values are, of their size
  if (STEPS * grain > 1 - WIDE) return null;
  /** Of the samples between a share of the top value and the heap. */
  const density = (share: number): number => {
    const low = Math.min(share, 1 - STEPS * grain);
    return total(counts, top + Math.round(Math.log(low) / RATIO), top - width) / (1 - low - grain / 2);
  };
  const [narrow, near, wide] = [NARROW, NEAR, WIDE].map(density);
  const first = Math.max(0, top - width);
  const held = total(counts, first, top + 1);
  const expected = grain * Math.max(narrow, near, wide / 3);
  if (held < Math.max(LEAST, SHARE * samples, TIMES * expected) || near > TONE * wide) return null;
  return valueOf(first + counts.subarray(first, top + 1).findIndex((n) => n >= held / 50));
}

/** The same ceiling on this side, too, if several samples lie at it and none beyond it. */
function like(counts: Float64Array, other: number | null): number | null {
  const top = lastOf(counts);
  if (other === null || top < 0) return null;
  const value = valueOf(top - 1);
  return total(counts, top - 1) >= FEW && Math.abs(value / other - 1) < ALIKE ? value : null;
}
