/** Speech through the codec that streams, as in a call: codes, packets of one frame, some of them lost, and sound again. */
import type { Graph, States } from "./graph";
import { joined, type Tracks } from "./session";

const FADE = [6, 12]; // packets lost in a row: from the first number on it fades, at the second there is silence
const ABSENT = -1n; // the code of a codebook that is not there

/** Which packets get lost: a share of them, in gaps of two in the mean (Gilbert's chain of two states). */
export class Losses {
  private gone = false;

  constructor(private readonly random: () => number = Math.random) {}

  next(share: number): boolean {
    const begins = (0.5 * share) / Math.max(0.01, 1 - share);
    this.gone = share > 0 && this.random() < (this.gone ? 0.5 : begins);
    return this.gone;
  }
}

/** One voice through encoder and decoder. `push` gives what is certain; above the codec's band there is nothing. */
export class Talk {
  received = 0; // samples in
  strength = 1; // has no meaning here
  lost = 0; // share of the packets
  private made = 0; // samples out
  private rest: Float32Array = new Float32Array(0);
  private before: number; // rows of codes that lie before the beginning
  private begun = false;
  private gap = 0; // packets lost in a row by now
  private readonly states: [States, States];

  constructor(
    private readonly encoder: Graph,
    private readonly decoder: Graph,
    private readonly losses = new Losses(),
  ) {
    this.states = [encoder.silence(), decoder.silence()];
    this.before = encoder.facts.ahead;
  }

  /** Samples that are in and not yet out. */
  get waiting(): number {
    return this.received - this.made;
  }

  async push(wav: Float32Array): Promise<Tracks> {
    const { hop } = this.encoder.facts;
    this.received += wav.length;
    this.rest = joined([this.rest, wav]);
    const parts: Float32Array[] = [];
    while (this.rest.length >= hop) {
      const found = await this.encoder.step(this.states[0], { wav: { data: this.rest.slice(0, hop), dims: [1, hop] } });
      this.rest = this.rest.slice(hop);
      if (this.before > 0) this.before--;
      else parts.push(await this.take(found["codes"].data as BigInt64Array, this.losses.next(this.lost)));
    }
    const sound = joined(parts.concat(new Float32Array(0)));
    this.made += sound.length;
    return { sound, above: new Float32Array(sound.length) };
  }

  private async take(codes: BigInt64Array, gone: boolean): Promise<Float32Array> {
    this.gap = gone ? this.gap + 1 : 0;
    const data = gone ? codes.map(() => ABSENT) : codes;
    const found = await this.decoder.step(this.states[1], { codes: { data, dims: [1, data.length, 1] } });
    const whole = found["wav"].data as Float32Array;
    const sound = this.begun ? whole : whole.slice(whole.length / 2); // half a hop lies before the sound
    this.begun = true;
    const [begin, end] = FADE;
    if (this.gap <= begin) return sound;
    const [from, to] = [this.gap - 1, this.gap].map((gap) => Math.max(0, (end - gap) / (end - begin)));
    return sound.map((x, i) => x * (from + ((to - from) * i) / (sound.length - 1)));
  }
}
