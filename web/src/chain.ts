/**
 * What the audio thread does with the microphone, 128 samples at a time, without making arrays:
 *
 *   microphone -> resample down -> ring -> worker (the network) -> ring -> resample up -> mix -> speaker
 *        \------------------------- the same, delayed as much --------------------------/
 *
 * The delay is fixed. What the worker has ready by then is mixed in; where it is late, the delayed original is heard,
 * and the change from one to the other takes some milliseconds. So nothing clicks, and bypass is in phase.
 */
import { Resampler } from "./resample";
import { Ring } from "./ring";
import { mixed } from "./session";

export const FADE = 0.006; // seconds from cleaned to original, or back
const CALM = 1; // seconds for which the worker must be in time before it is trusted again
const LOW_MOST = 512; // samples of the worker that are taken at a time
const BLOCK_MOST = 2048; // samples of one call

/** Numbers that the page sets (knobs) and shows (gauges), in shared memory. */
export const KNOBS = { bypass: 0, record: 1, silent: 2 } as const;
export const GAUGES = { before: 3, after: 4, mix: 5, late: 6, spare: 7, load: 8, worst: 9, lost: 10 } as const;
export const PANEL = 16; // numbers in all

export class Chain {
  private readonly down: Resampler;
  private readonly up: Resampler;
  private readonly original: Float32Array;
  private readonly changes: Float32Array[]; // three tracks of the worker at the device's rate
  private readonly tracks: Float32Array[];
  private readonly packed: Float32Array;
  private readonly zeros = new Float32Array(1024);
  private readonly fade: number;
  private readonly mask: number;
  private readonly above: boolean; // whether the device hears more than the network
  private count = 0; // samples that came in
  private made = 0; // samples for which there are changes
  private owed = 0; // samples that found no room on the way to the worker
  private calm: number; // samples since the worker was late
  private mix = 0;

  /** `late`: samples from the microphone to the speaker. */
  constructor(
    private readonly sr: number,
    lowSr: number,
    private readonly late: number,
    private readonly toWorker: Ring,
    private readonly fromWorker: Ring,
    private readonly recorded: Ring,
    private readonly panel: Float32Array,
  ) {
    this.down = new Resampler(sr, lowSr, 1, BLOCK_MOST);
    this.up = new Resampler(lowSr, sr, 3, LOW_MOST);
    this.above = sr >= lowSr;
    const size = 2 ** Math.ceil(Math.log2(late + 2 * sr));
    this.mask = size - 1;
    this.original = new Float32Array(size);
    this.changes = [0, 1, 2].map(() => new Float32Array(size));
    this.tracks = [0, 1, 2].map(() => new Float32Array(LOW_MOST));
    this.packed = new Float32Array(3 * LOW_MOST);
    this.fade = Math.round(FADE * sr);
    this.calm = CALM * sr;
  }

  /** `input` -> what is heard, and the original at the same moment. All have the same length. */
  process(input: Float32Array, heard: Float32Array, delayed: Float32Array): void {
    const n = input.length;
    const { mask, panel } = this;
    for (let i = 0; i < n; i++) this.original[(this.count + i) & mask] = input[i];
    this.count += n;
    this.send(input, n);
    this.receive();

    const first = this.count - this.late - n; // the sample that is heard first
    const spare = this.made - (first + n); // samples that are ready beyond this call
    if (spare >= this.fade) this.calm = Math.min(CALM * this.sr, this.calm + n);
    else if (first >= 0) {
      if (this.calm >= CALM * this.sr) panel[GAUGES.late]++;
      this.calm = 0;
    }
    const ready = first >= 0 && this.calm >= CALM * this.sr && spare >= this.fade;
    const target = ready && !panel[KNOBS.bypass] ? 1 : 0;
    let before = 0;
    let after = 0;
    for (let i = 0; i < n; i++) {
      const at = (first + i) & mask;
      const x = first + i < 0 ? 0 : this.original[at];
      this.mix += Math.max(-1 / this.fade, Math.min(1 / this.fade, target - this.mix));
      let y = x;
      if (this.mix > 0 && first + i < this.made) {
        const top = this.above ? this.changes[1][at] : -1;
        y += this.mix * (mixed(x, this.changes[0][at], top, this.changes[2][at], 1) - x);
      }
      delayed[i] = x;
      heard[i] = y;
      before += x * x;
      after += y * y;
    }
    if (panel[KNOBS.record]) {
      if (this.recorded.free >= n) this.recorded.write(heard, n);
      else panel[GAUGES.lost] += n;
    }
    if (panel[KNOBS.silent]) heard.fill(0);
    panel[GAUGES.before] += 0.1 * (before / n - panel[GAUGES.before]); // powers, over some 30 ms
    panel[GAUGES.after] += 0.1 * (after / n - panel[GAUGES.after]);
    panel[GAUGES.mix] = this.mix;
    panel[GAUGES.spare] = spare / this.sr;
  }

  /** On to the worker. What finds no room there is later replaced by silence, so that moments stay where they are. */
  private send(input: Float32Array, n: number): void {
    const low = this.down.push([input], n);
    while (this.owed > 0 && this.toWorker.free > 0) {
      const count = Math.min(this.owed, this.toWorker.free, this.zeros.length);
      this.toWorker.write(this.zeros, count);
      this.owed -= count;
    }
    if (this.owed > 0 || this.toWorker.free < low) this.owed += low;
    else if (low > 0) this.toWorker.write(this.down.out[0], low);
  }

  /** What the worker has ready: (change, gain above the band - 1, the network's input), one after the other. */
  private receive(): void {
    const low = Math.min(LOW_MOST, Math.floor(this.fromWorker.filled / 3));
    if (!low) return;
    this.fromWorker.read(this.packed, 3 * low);
    for (let i = 0; i < low; i++) {
      for (let k = 0; k < 3; k++) this.tracks[k][i] = this.packed[3 * i + k];
    }
    const count = this.up.push(this.tracks, low);
    for (let k = 0; k < 3; k++) {
      const from = this.up.out[k];
      const to = this.changes[k];
      for (let i = 0; i < count; i++) to[(this.made + i) & this.mask] = from[i];
    }
    this.made += count;
  }
}
