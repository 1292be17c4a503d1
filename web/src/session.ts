/**
 * Cleaning sound as it arrives: wavelldm/light/denoiser.py, stage by stage.
 *
 *   sound -> resample to the graph's rate -> graph, hop by hop or span by span -> resample back -> mix
 */
import { Sentence } from "./errors";
import type { Facts } from "./facts";
import type { Graph, States } from "./graph";
import { LEVEL } from "./levels";
import { Resampler } from "./resample";

const SPAN = 625; // frames of a recording that go through at a time, and ...
const AFTER = 125; // ... those heard after them: 10 s, 2 s

export function joined(parts: Float32Array[]): Float32Array {
  if (parts.length === 1) return parts[0];
  const whole = new Float32Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** `x` with zeros behind it, cut or filled to `size` samples. */
function fitted(x: Float32Array, size: number): Float32Array {
  const y = new Float32Array(size);
  y.set(x.subarray(0, size));
  return y;
}

export interface Tracks {
  sound: Float32Array; // at the graph's rate
  above: Float32Array; // the gain of what lies above its band
}

interface Answer {
  wav: Float32Array;
  tops: Float32Array; // one for each frame
}

/** One channel through a graph. `push` gives what is certain. */
export abstract class Stage {
  strength: number;
  protected readonly facts: Facts;
  protected readonly states: States;
  protected readonly side: number; // samples that a frame sees on either side of its own hop
  protected held: Float32Array = new Float32Array(0);
  protected frames = 0; // that went through
  received = 0; // samples in
  private made: number; // samples: the first frame reaches back beyond the beginning
  private top: number | null = null; // of the last frame

  constructor(protected readonly graph: Graph, strength: number) {
    this.facts = graph.facts;
    this.states = graph.silence();
    this.strength = strength;
    this.side = Math.floor(this.facts.hop / 2);
    this.made = -this.side;
  }

  /** Samples that are in and not yet out. */
  get waiting(): number {
    return this.received - Math.max(0, this.made);
  }

  async push(wav: Float32Array, last = false): Promise<Tracks> {
    this.received += wav.length;
    this.held = joined([this.held, wav]);
    const answers: Answer[] = [];
    for await (const answer of this.answers(last)) answers.push(answer);
    const sound = joined(answers.map((a) => a.wav).concat(new Float32Array(0)));
    const tops = joined(answers.map((a) => a.tops).concat(new Float32Array(0)));
    if (!tops.length) return { sound: new Float32Array(0), above: new Float32Array(0) };
    const hop = this.facts.hop;
    const above = new Float32Array(tops.length * hop);
    let before = this.top ?? tops[0];
    tops.forEach((top, t) => {
      for (let i = 0; i < hop; i++) above[t * hop + i] = before + ((top - before) * (i + 1)) / hop;
      before = top;
    });
    this.top = before;
    const begin = Math.min(Math.max(0, -this.made), sound.length);
    this.made += sound.length;
    const end = last ? begin + Math.max(0, this.received - this.made + sound.length - begin) : sound.length;
    return { sound: sound.subarray(begin, end), above: above.subarray(begin, end) };
  }

  /** The sound and the gains of all frames that can be answered now. */
  protected abstract answers(last: boolean): AsyncGenerator<Answer>;
}

/** Hop by hop, as the sound arrives. */
class StreamStage extends Stage {
  constructor(graph: Graph, strength: number) {
    super(graph, strength);
    this.held = new Float32Array(this.side);
  }

  protected async *answers(last: boolean): AsyncGenerator<Answer> {
    const { hop, chunk, ahead } = this.facts;
    const size = hop * chunk;
    let end = Infinity;
    if (last) {
      end = Math.ceil(this.received / hop); // the frame that begins behind the sound
      const left = Math.ceil((this.received + this.side) / hop) + ahead - this.frames;
      this.held = fitted(this.held, hop + Math.ceil(left / chunk) * size);
    }
    while (this.held.length >= hop + size) {
      if (this.frames === 0) this.states["past"] = this.held.slice(0, hop);
      const inside = new Float32Array(chunk);
      let early = 0;
      for (let i = 0; i < chunk; i++) {
        const number = this.frames - ahead + i; // of the frame that is answered
        inside[i] = number >= 0 && number < end ? 1 : 0;
        if (number < 0) early++;
      }
      const { cleaned, top } = await this.graph.run(this.states, {
        sound: { data: this.held.slice(hop, hop + size), dims: [1, size] },
        inside: { data: inside, dims: [chunk] },
        strength: { data: new Float32Array([this.strength]), dims: [1] },
      });
      this.held = this.held.slice(size);
      this.frames += chunk;
      yield { wav: cleaned.subarray(early * hop), tops: top.subarray(early) };
    }
  }
}

/** Span by span, each with what is heard after it. */
class RecordingStage extends Stage {
  constructor(graph: Graph, strength: number) {
    super(graph, strength);
    this.held = new Float32Array(this.facts.taps * this.facts.hop + this.side);
  }

  protected async *answers(last: boolean): AsyncGenerator<Answer> {
    const { hop, taps, ahead } = this.facts;
    if (last) {
      const left = Math.ceil(this.received / hop) - this.frames + ahead; // frames, and those ahead of the last one
      this.held = fitted(this.held, (taps + left + 1) * hop);
    }
    for (;;) {
      const have = Math.floor(this.held.length / hop) - 1 - taps; // whole frames
      const more = have >= SPAN + AFTER;
      if (!more && !(last && have > ahead)) return;
      const count = Math.min(have, SPAN + AFTER) - ahead;
      const keep = more ? SPAN : count;
      const size = (taps + count + ahead + 1) * hop;
      const { cleaned, top } = await this.graph.run(this.states, {
        sound: { data: this.held.slice(0, size), dims: [1, size] },
        begun: { data: new Float32Array([this.frames > 0 ? 1 : 0]), dims: [1] },
        keep: { data: new BigInt64Array([BigInt(keep)]), dims: [1] },
        strength: { data: new Float32Array([this.strength]), dims: [1] },
      });
      this.held = this.held.slice(keep * hop);
      this.frames += keep;
      yield { wav: cleaned.subarray(0, keep * hop), tops: top.subarray(0, keep) };
      if (last && !more) {
        // the second half of the last frame
        const tail = this.states["tail"]; // (2, hop): sound, and the window it lies under
        yield { wav: tail.slice(0, hop).map((x, i) => x / Math.max(tail[hop + i], 1e-3)), tops: new Float32Array(1) };
        return;
      }
    }
  }
}

export const stageOf = (graph: Graph, strength: number): Stage =>
  new (graph.facts.form === "stream" ? StreamStage : RecordingStage)(graph, strength);

/** The most samples at rate `sr` that are in and not yet out. */
export function latencyOf(facts: { sr: number; latency: number }, sr: number): number {
  const up = new Resampler(facts.sr, sr).lookahead;
  return Math.ceil(((facts.latency + up) * sr) / facts.sr) + new Resampler(sr, facts.sr).lookahead;
}

/** One recording being cleaned: `push` blocks of all channels; what comes out, joined, is as long as what went in. */
export class Session {
  private readonly lowSr: number;
  private readonly channels: number;
  private readonly stages: Stage[];
  private readonly gain: number[];
  private readonly down: Resampler;
  private readonly up: Resampler;
  private original: Float32Array[];
  private low: Float32Array[];
  private received = 0;

  constructor(graph: Graph, private readonly sr: number, levels: number[], strength = 1, private background = 0) {
    if (!(strength >= 0 && strength <= 4 && background >= 0 && background <= 1)) {
      throw new Sentence("Choose a strength between 0 and 4, and a background between 0 and 1.");
    }
    this.lowSr = graph.facts.sr;
    this.channels = levels.length;
    this.stages = strength > 0 ? levels.map(() => stageOf(graph, strength)) : [];
    this.gain = levels.map((level) => 10 ** ((LEVEL - level) / 20));
    this.down = new Resampler(sr, this.lowSr, this.channels);
    this.up = new Resampler(this.lowSr, sr, 3 * this.channels);
    this.original = levels.map(() => new Float32Array(0));
    this.low = levels.map(() => new Float32Array(0));
  }

  push(block: Float32Array[]): Promise<Float32Array[]> {
    return this.through(block, false);
  }

  finish(): Promise<Float32Array[]> {
    return this.through(this.original.map(() => new Float32Array(0)), true);
  }

  private async through(block: Float32Array[], last: boolean): Promise<Float32Array[]> {
    if (block.some((row) => row.some((x) => !Number.isFinite(x)))) {
      throw new Sentence("The recording holds samples that are no numbers. Repair it first.");
    }
    this.received += block[0].length;
    if (!this.stages.length || !this.received) return block;
    this.original = this.original.map((row, c) => joined([row, block[c]]));
    const scaled = block.map((row, c) => row.map((x) => x * this.gain[c]));
    const fresh = this.down.through(scaled, last);
    this.low = this.low.map((row, c) => joined([row, fresh[c]]));
    const tracks: Tracks[] = [];
    for (let c = 0; c < this.channels; c++) tracks.push(await this.stages[c].push(fresh[c], last));
    const n = tracks[0].sound.length;
    const changes: Float32Array[] = new Array(3 * this.channels);
    tracks.forEach(({ sound, above }, c) => {
      const low = this.low[c].slice(0, n);
      const keep = 1 - this.background;
      changes[c] = sound.map((x, i) => keep * (x - low[i]));
      // above the network's band there is nothing if the recording ends below it
      changes[this.channels + c] = above.map((x) => (this.sr < this.lowSr ? -1 : keep * (x - 1)));
      changes[2 * this.channels + c] = low;
      this.low[c] = this.low[c].slice(n);
    });
    const wide = this.up.through(changes, last);
    const m = Math.min(wide[0].length, this.original[0].length);
    return this.original.map((row, c) => {
      this.original[c] = row.slice(m);
      const [change, top, low] = [0, 1, 2].map((k) => wide[k * this.channels + c]);
      return row.slice(0, m).map((x, i) => mixed(x, change[i], top[i], low[i], this.gain[c]));
    });
  }
}

/** A sample of the original, and what happens to it: the change below the network's band, and the gain above it. */
export function mixed(original: number, change: number, top: number, low: number, gain: number): number {
  return original + (change + Math.min(0, Math.max(-1, top)) * (gain * original - low)) / gain;
}
