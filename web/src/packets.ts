/**
 * MP3, FLAC and Ogg files, packet by packet: only what is decoded next is in memory, so a file may have any length.
 *
 * Layouts: ISO/IEC 11172-3 (MPEG audio, its Layer III is MP3), RFC 9639 (FLAC), RFC 3533 (Ogg), RFC 7845 (Opus in Ogg).
 */
import type { Coding } from "./wav";

const PIECE = 1 << 18; // bytes that are read at a time
const LOST = 1 << 16; // bytes of a beginning in which a first frame must be found

/** What a decoder has to know, and the packets it gets. */
export interface Packed {
  codec: string; // as WebCodecs names it
  description?: Uint8Array<ArrayBuffer>;
  sr: number;
  channels: number;
  coding: Coding; // that loses nothing
  skip: number; // samples that the decoder gives before the sound begins
  frames: number; // samples of the sound; Infinity where the file does not say
  packets: AsyncGenerator<Uint8Array<ArrayBuffer>>;
  read: () => number; // bytes that were read
}

/** A file that cannot be cut into packets for certain. */
export class Unsure extends Error {}

/** Bytes of a Blob from `at` on. */
class Bytes {
  at = 0;
  private held = new Uint8Array(0);
  private first = 0;

  constructor(readonly blob: Blob) {}

  /** The next `n` bytes, or fewer at the end. */
  async peek(n: number): Promise<Uint8Array<ArrayBuffer>> {
    const end = this.first + this.held.length;
    if (this.at < this.first || (this.at + n > end && end < this.blob.size)) {
      const slice = this.blob.slice(this.at, this.at + Math.max(n, PIECE));
      [this.first, this.held] = [this.at, new Uint8Array(await slice.arrayBuffer())];
    }
    return this.held.slice(this.at - this.first, this.at - this.first + n);
  }

  async take(n: number): Promise<Uint8Array<ArrayBuffer>> {
    const taken = await this.peek(n);
    this.at += n;
    return taken;
  }
}

const text = (x: Uint8Array, from: number, n: number): string => String.fromCharCode(...x.subarray(from, from + n));
const viewed = (x: Uint8Array): DataView => new DataView(x.buffer, x.byteOffset, x.byteLength);
const whole24 = (x: Uint8Array, at: number): number => (x[at] << 16) | (x[at + 1] << 8) | x[at + 2];

const KBITS_1 = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]; // of MPEG 1
const KBITS_2 = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]; // of MPEG 2 and 2.5
const MP3_LATE = 529; // samples that every decoder of MP3 is late

interface Mp3Frame {
  sr: number;
  channels: number;
  size: number; // bytes
  side: number; // bytes before the place where a first frame describes the file
  samples: number;
}

/** The frame of an MP3 file that begins with these four bytes, or null. */
export function mp3Frame(head: Uint8Array): Mp3Frame | null {
  if (head.length < 4 || head[0] !== 255 || (head[1] & 0xe6) !== 0xe2) return null;
  const version = (head[1] >> 3) & 3; // of MPEG: 2.5, none, 2, 1
  const rate = [44100, 48000, 32000][(head[2] >> 2) & 3];
  const kbits = (version === 3 ? KBITS_1 : KBITS_2)[head[2] >> 4];
  if (version === 1 || !rate || !kbits) return null;
  const sr = rate / [4, 1, 2, 1][version];
  const samples = version === 3 ? 1152 : 576;
  const size = Math.floor(((samples / 8) * 1000 * kbits) / sr) + ((head[2] >> 1) & 1);
  const channels = head[3] >> 6 === 3 ? 1 : 2;
  const side = 4 + (version === 3 ? [17, 32] : [9, 17])[channels - 1] + (head[1] & 1 ? 0 : 2);
  return { sr, channels, size, side, samples };
}

/** The length of an ID3 tag at the beginning, in bytes. */
export const tagged = (head: Uint8Array): number =>
  text(head, 0, 3) === "ID3" ? 10 + [6, 7, 8, 9].reduce((size, i) => size * 128 + head[i], 0) : 0;

async function mp3(bytes: Bytes): Promise<Packed | null> {
  const begin = tagged(await bytes.peek(10));
  bytes.at = begin;
  /** Goes on to a frame that is followed by another one. */
  const found = async (like: Mp3Frame | null, end: number): Promise<Mp3Frame | null> => {
    for (; bytes.at < end; bytes.at++) {
      const frame = mp3Frame(await bytes.peek(4));
      if (!frame || (like && (like.sr !== frame.sr || like.channels !== frame.channels))) continue;
      const next = mp3Frame((await bytes.peek(frame.size + 4)).subarray(frame.size));
      if (next?.sr === frame.sr) return frame;
    }
    return null;
  };
  const first = await found(null, Math.min(bytes.blob.size, begin + LOST));
  if (!first) return null;
  let [skip, frames] = [0, Infinity];
  const data = await bytes.peek(first.size);
  if (["Xing", "Info"].includes(text(data, first.side, 4))) {
    // The first frame is silent and describes the file. Which fields there are, its flags say.
    const flags = data[first.side + 7];
    let at = first.side + 8;
    const count = flags & 1 ? viewed(data).getUint32(at) : 0;
    for (const [bit, size] of [[1, 4], [2, 4], [4, 100], [8, 4]]) if (flags & bit) at += size;
    const ends = at + 24 <= data.length ? whole24(data, at + 21) : 0; // what the packer added before and behind
    if (ends) {
      skip = (ends >> 12) + MP3_LATE;
      if (count) frames = count * first.samples - (ends >> 12) - (ends & 4095);
    }
    bytes.at += first.size;
  }
  async function* packets(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    for (;;) {
      let frame = mp3Frame(await bytes.peek(4));
      if (!frame || frame.sr !== first!.sr) frame = await found(first, bytes.blob.size); // tags, or damage
      if (!frame) return;
      if (frame.channels !== first!.channels) throw new Unsure("channels change");
      const packet = await bytes.take(frame.size);
      if (packet.length === frame.size) yield packet;
    }
  }
  const { sr, channels } = first;
  return { codec: "mp3", sr, channels, coding: "pcm16", skip, frames, packets: packets(), read: () => bytes.at };
}

const CRC_8 = Uint8Array.from({ length: 256 }, (_, i) => {
  let crc = i;
  for (let k = 0; k < 8; k++) crc = ((crc << 1) ^ (crc & 128 ? 7 : 0)) & 255;
  return crc;
});

/** The frame of a FLAC file whose header begins at `at`: its number, and how many samples it has; null for other bytes. */
function flacFrame(x: Uint8Array, at: number): { number: number; samples: number; counts: "frames" | "samples" } | null {
  if (x[at] !== 0xff || (x[at + 1] & 0xfe) !== 0xf8 || at + 16 > x.length) return null;
  const [size, rate] = [x[at + 2] >> 4, x[at + 2] & 15];
  if (!size || rate === 15 || x[at + 3] >> 4 > 10 || x[at + 3] & 1) return null;
  let to = at + 4;
  let more = Math.max(0, Math.clz32((~x[to] & 255) << 24) - 1); // bytes of the number behind its first, as in UTF-8
  if (x[to] < 128) more = 0;
  else if (more < 1 || more > 6) return null;
  let number = x[to] < 128 ? x[to] : x[to] & (0x3f >> more);
  for (to++; more; more--) {
    if ((x[to] & 0xc0) !== 0x80) return null;
    number = number * 64 + (x[to++] & 63);
  }
  let samples = size === 1 ? 192 : size < 6 ? 576 << (size - 2) : 256 << (size - 8);
  if (size === 6) samples = x[to++] + 1;
  else if (size === 7) (samples = ((x[to] << 8) | x[to + 1]) + 1), (to += 2);
  to += rate === 12 ? 1 : rate > 12 ? 2 : 0;
  let crc = 0;
  for (let i = at; i < to; i++) crc = CRC_8[crc ^ x[i]];
  return crc === x[to] ? { number, samples, counts: x[at + 1] & 1 ? "samples" : "frames" } : null;
}

async function flac(bytes: Bytes): Promise<Packed | null> {
  bytes.at = tagged(await bytes.peek(10));
  if (text(await bytes.take(4), 0, 4) !== "fLaC") return null;
  let about: Uint8Array<ArrayBuffer> | null = null;
  for (let last = false; !last; ) {
    const head = await bytes.take(4);
    if (head.length < 4) return null;
    last = head[0] >= 128;
    const size = whole24(head, 1);
    if ((head[0] & 127) === 0) about = await bytes.peek(size);
    bytes.at += size;
  }
  if (!about || about.length < 34) return null;
  const view = viewed(about);
  const sr = view.getUint32(10) >>> 12;
  const channels = ((about[12] >> 1) & 7) + 1;
  const bits = (((about[12] & 1) << 4) | (about[13] >> 4)) + 1;
  const frames = (about[13] & 15) * 2 ** 32 + view.getUint32(14) || Infinity;
  const most = whole24(about, 7) || view.getUint16(2) * channels * 4 + 1024; // bytes of a frame
  if (!sr) return null;
  const description = new Uint8Array([0x66, 0x4c, 0x61, 0x43, 0x80, 0, 0, 34, ...about.subarray(0, 34)]);
  async function* packets(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    for (;;) {
      const data = await bytes.peek(most + 32);
      if (!data.length) return;
      const here = flacFrame(data, 0);
      if (!here) throw new Unsure("no frame"); // damage, or a tag at the end
      const next = here.number + (here.counts === "frames" ? 1 : here.samples);
      let end = 10; // a frame has two bytes of CRC more than its header, and something between
      while (end < data.length && flacFrame(data, end)?.number !== next) end++;
      if (end === data.length && bytes.at + end < bytes.blob.size) throw new Unsure("no end of a frame");
      yield await bytes.take(end);
    }
  }
  const coding: Coding = bits > 24 ? "pcm32" : bits > 16 ? "pcm24" : "pcm16";
  return { codec: "flac", description, sr, channels, coding, skip: 0, frames, packets: packets(), read: () => bytes.at };
}

interface Page {
  begins: boolean;
  serial: number;
  samples: number; // up to its end; -1 where no packet ends
  parts: { data: Uint8Array<ArrayBuffer>; ends: boolean }[];
}

async function oggPage(bytes: Bytes): Promise<Page | null> {
  const head = await bytes.peek(27 + 255);
  if (head.length < 27) return null;
  if (text(head, 0, 4) !== "OggS") throw new Unsure("no page");
  const view = viewed(head);
  const sizes = head.subarray(27, 27 + head[26]);
  bytes.at += 27 + head[26];
  const body = await bytes.take(sizes.reduce((a, b) => a + b, 0));
  const parts: Page["parts"] = [];
  for (let at = 0, size = 0, i = 0; i < sizes.length; i++) {
    size += sizes[i];
    if (sizes[i] === 255 && i + 1 < sizes.length) continue;
    parts.push({ data: body.slice(at, at + size), ends: sizes[i] < 255 });
    at += size;
    size = 0;
  }
  const samples = Number(view.getBigInt64(6, true));
  return { begins: (head[5] & 2) > 0, serial: view.getUint32(14, true), samples, parts };
}

const joined = (parts: Uint8Array[]): Uint8Array<ArrayBuffer> => {
  const whole = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) (whole.set(part, at), (at += part.length));
  return whole;
};

async function ogg(bytes: Bytes): Promise<Packed | null> {
  if (text(await bytes.peek(4), 0, 4) !== "OggS") return null;
  let serial = -1;
  let started = false; // the pages that begin a stream come first
  /** The packets of the first stream with sound. */
  async function* all(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    let held: Uint8Array[] = [];
    for (let page = await oggPage(bytes); page; page = await oggPage(bytes)) {
      if (page.begins && started) throw new Unsure("one file behind another");
      if (!page.begins) started = true;
      if (page.begins && serial < 0 && /^(OpusHead|\x01vorbis)/.test(text(page.parts[0].data, 0, 8))) serial = page.serial;
      if (page.serial !== serial) continue;
      for (const { data, ends } of page.parts) {
        held.push(data);
        if (ends) yield joined(held.splice(0));
      }
    }
  }
  const packets = all();
  const next = async (): Promise<Uint8Array<ArrayBuffer>> => (await packets.next()).value ?? new Uint8Array(0);
  const head = await next();
  const about = viewed(head);
  const tail = new Uint8Array(await bytes.blob.slice(Math.max(0, bytes.blob.size - (1 << 17))).arrayBuffer());
  let end = Infinity;
  for (let at = tail.length - 27; at >= 0 && end === Infinity; at--) {
    if (tail[at] !== 79 || text(tail, at, 4) !== "OggS" || viewed(tail).getUint32(at + 14, true) !== serial) continue;
    const samples = Number(viewed(tail).getBigInt64(at + 6, true));
    if (samples >= 0) end = samples;
  }
  const shared = { coding: "pcm16" as Coding, packets, read: () => bytes.at };
  if (text(head, 0, 8) === "OpusHead" && head.length >= 19 && head[18] === 0) {
    await next(); // names and titles
    const skip = about.getUint16(10, true);
    return { ...shared, codec: "opus", sr: 48000, channels: head[9], skip, frames: end - skip };
  }
  if (text(head, 0, 7) !== "\x01vorbis" || head.length < 30) return null;
  const [comment, books] = [await next(), await next()];
  const laced = (n: number): number[] => [...new Array(Math.floor(n / 255)).fill(255), n % 255];
  const sizes = new Uint8Array([2, ...laced(head.length), ...laced(comment.length)]);
  const description = joined([sizes, head, comment, books]);
  return { ...shared, codec: "vorbis", description, sr: about.getUint32(12, true), channels: head[11], skip: 0, frames: end };
}

/** A file in packets, or null where it is of another kind. */
export async function packed(blob: Blob): Promise<Packed | null> {
  for (const kind of [flac, ogg, mp3]) {
    const found = await kind(new Bytes(blob));
    if (found) return found;
  }
  return null;
}
