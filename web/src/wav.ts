/** WAV files: read piece by piece from a Blob of any size, and written as pieces that make a Blob. */
import { checkRate } from "./resample";
import { Sentence } from "./errors";
import { Spill } from "./store";

const PCM = 1;
const FLOAT = 3;
const EXTENSIBLE = 0xfffe;
const MOST_BYTES = 0xffffff00; // a WAV file counts its bytes in 32 bits
const MOST_HELD = 32e6; // bytes that stay in memory

export type Coding = "pcm8" | "pcm16" | "pcm24" | "pcm32" | "float32" | "float64";
export const WIDTHS: Record<Coding, number> = { pcm8: 1, pcm16: 2, pcm24: 3, pcm32: 4, float32: 4, float64: 8 };

/** Sound that lies in a Blob as samples. */
export interface Wav {
  blob: Blob;
  start: number; // byte of the first sample
  coding: Coding;
  sr: number;
  channels: number;
  frames: number;
}

const word = (view: DataView, at: number): string =>
  String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));

/** The header of a WAV file, or null for any other file. */
export async function opened(blob: Blob): Promise<Wav | null> {
  const view = async (from: number, size: number): Promise<DataView> =>
    new DataView(await blob.slice(from, from + size).arrayBuffer());
  const head = await view(0, 12);
  if (head.byteLength < 12 || word(head, 0) !== "RIFF" || word(head, 8) !== "WAVE") return null;
  let form: DataView | null = null;
  for (let at = 12; ; ) {
    const chunk = await view(at, 8);
    if (chunk.byteLength < 8) throw new Sentence("This WAV file ends before its samples begin. Save it again.");
    const name = word(chunk, 0);
    const size = chunk.getUint32(4, true);
    at += 8;
    if (name === "data") {
      if (!form || form.byteLength < 16) throw new Sentence("This WAV file does not say what its samples are. Save it again.");
      let kind = form.getUint16(0, true);
      if (kind === EXTENSIBLE && form.byteLength >= 26) kind = form.getUint16(24, true);
      const coding = `${kind === PCM ? "pcm" : kind === FLOAT ? "float" : "?"}${form.getUint16(14, true)}` as Coding;
      const channels = form.getUint16(2, true);
      if (!(coding in WIDTHS) || !channels) return null; // the browser may know it
      const bytes = Math.min(size, blob.size - at); // a file that was cut short holds fewer than its header says
      const frames = Math.floor(bytes / (WIDTHS[coding] * channels));
      if (!frames) throw new Sentence("This file holds no sound. Choose another one.");
      return { blob, start: at, coding, sr: checkRate(form.getUint32(4, true)), channels, frames };
    }
    if (name === "fmt ") form = await view(at, size);
    at += size + (size % 2);
  }
}

/** Samples `from` to `from + count` of all channels. */
export async function read(wav: Wav, from: number, count: number): Promise<Float32Array[]> {
  const n = Math.max(0, Math.min(count, wav.frames - from));
  const width = WIDTHS[wav.coding];
  const begin = wav.start + from * width * wav.channels;
  const view = new DataView(await wav.blob.slice(begin, begin + n * width * wav.channels).arrayBuffer());
  const value: (at: number) => number = {
    pcm8: (at: number) => (view.getUint8(at) - 128) / 128,
    pcm16: (at: number) => view.getInt16(at, true) / 32768,
    pcm24: (at: number) => (view.getInt16(at + 1, true) * 256 + view.getUint8(at)) / 8388608,
    pcm32: (at: number) => view.getInt32(at, true) / 2147483648,
    float32: (at: number) => view.getFloat32(at, true),
    float64: (at: number) => view.getFloat64(at, true),
  }[wav.coding];
  const block = Array.from({ length: wav.channels }, () => new Float32Array(n));
  for (let i = 0, at = 0; i < n; i++) {
    for (let c = 0; c < wav.channels; c++, at += width) block[c][i] = value(at);
  }
  return block;
}

/** Samples as bytes. Whole numbers cannot go beyond full scale. */
export function bytes(block: Float32Array[], coding: Coding): ArrayBuffer {
  const width = WIDTHS[coding];
  const view = new DataView(new ArrayBuffer(block[0].length * block.length * width));
  const scale = 2 ** (8 * width - 1);
  for (let i = 0, at = 0; i < block[0].length; i++) {
    for (let c = 0; c < block.length; c++, at += width) {
      const x = block[c][i];
      if (coding === "float32") view.setFloat32(at, x, true);
      else if (coding === "float64") view.setFloat64(at, x, true);
      else {
        const whole = Math.min(scale - 1, Math.max(-scale, Math.round(x * scale)));
        if (width === 1) view.setUint8(at, whole + 128);
        else if (width === 2) view.setInt16(at, whole, true);
        else if (width === 4) view.setInt32(at, whole, true);
        else {
          view.setUint8(at, whole & 255);
          view.setInt16(at + 1, whole >> 8, true);
        }
      }
    }
  }
  return view.buffer as ArrayBuffer;
}

/**
 * Collects sound block by block. What is long goes to a file on the disk (store.ts), or where there is none stays in Blobs,
 * which the browser keeps where it has room.
 */
export class Writer {
  private parts: Blob[] = [];
  private held = 0; // bytes in `parts`
  private frames = 0;
  private spill: Spill | null = null;
  private full = false; // there is no disk

  constructor(private readonly sr: number, private readonly channels: number, private readonly coding: Coding) {}

  async add(block: Float32Array[]): Promise<void> {
    if (!block[0].length) return;
    const part = bytes(block, this.coding);
    this.parts.push(new Blob([part]));
    this.held += part.byteLength;
    this.frames += block[0].length;
    if (this.frames * this.channels * WIDTHS[this.coding] > MOST_BYTES) {
      throw new Sentence("The result would pass 4 GB, the limit of WAV files. Cut the recording in two.");
    }
    if (this.held < MOST_HELD || this.full) return;
    this.spill ??= await Spill.open(this.head());
    this.full = !this.spill;
    if (this.spill) await this.spill.write(new Blob(this.parts.splice(0)));
    this.held = 0;
  }

  /** Ends without a result. */
  async drop(): Promise<void> {
    await this.spill?.drop();
  }

  async finish(): Promise<Wav> {
    const { sr, channels, coding, frames } = this;
    if (this.spill) await this.spill.write(new Blob(this.parts));
    const file = this.spill ? await this.spill.finish(this.head()) : new Blob([this.head(), ...this.parts]);
    return { blob: file.slice(0, file.size, "audio/wav"), start: 44, coding, sr, channels, frames };
  }

  private head(): ArrayBuffer {
    const width = WIDTHS[this.coding];
    const size = this.frames * this.channels * width;
    const head = new DataView(new ArrayBuffer(44));
    const put = (at: number, text: string) => [...text].forEach((x, i) => head.setUint8(at + i, x.charCodeAt(0)));
    put(0, "RIFF");
    head.setUint32(4, 36 + size, true);
    put(8, "WAVEfmt ");
    head.setUint32(16, 16, true);
    head.setUint16(20, this.coding.startsWith("float") ? FLOAT : PCM, true);
    head.setUint16(22, this.channels, true);
    head.setUint32(24, this.sr, true);
    head.setUint32(28, this.sr * this.channels * width, true);
    head.setUint16(32, this.channels * width, true);
    head.setUint16(34, 8 * width, true);
    put(36, "data");
    head.setUint32(40, size, true);
    return head.buffer as ArrayBuffer;
  }
}
