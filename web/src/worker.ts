/** The thread that does the work: files, and the network of the live chain. One job at a time. */
import { GAUGES } from "./chain";
import { declipped } from "./clip";
import { explain, Stopped } from "./errors";
import type { Facts } from "./facts";
import { Graph } from "./graph";
import { findDamage, type Peaks } from "./find";
import { activePower, levelOf } from "./levels";
import { divisor, Resampler } from "./resample";
import { AROUND, CHUNK, fill, HOP, SR, type Gap } from "./restore";
import { Ring } from "./ring";
import { joined, Session, stageOf, type Tracks } from "./session";
import { Painter, type Picture } from "./spectrum";
import { Talk } from "./talk";
import { bytes, read, WIDTHS, Writer, type Coding, type Wav } from "./wav";
import type { Wiring } from "./worklet";

export interface Settings {
  strength: number;
  background: number;
  lost: number; // share of the packets, where the codec is heard
}

export type ToWorker =
  | { kind: "file"; job: number; wav: Wav; strength: number; background: number }
  | { kind: "find"; job: number; wav: Wav }
  | { kind: "declip"; job: number; wav: Wav; peaks: Peaks[] }
  | { kind: "fill"; job: number; wav: Wav; noisy: Wav; gaps: Gap[] }
  | { kind: "encode"; job: number; wav: Wav }
  | { kind: "decode"; job: number; codes: Int32Array }
  | ({ kind: "live"; wiring: Wiring; sr: number; buffer: number; talk: boolean } & Settings)
  | ({ kind: "settings" } & Settings)
  | { kind: "keep" } // what was recorded
  | { kind: "stop" };

export type FromWorker =
  | { kind: "looked"; job: number; picture: Picture }
  | { kind: "progress"; job: number; done: number }
  | { kind: "cleaned"; job: number; wav: Wav; picture: Picture; seconds: number }
  | { kind: "found"; job: number; gaps: Gap[]; peaks: Peaks[] }
  | { kind: "declipped"; job: number; wav: Wav }
  | { kind: "filled"; job: number; wav: Wav; picture: Picture }
  | { kind: "encoded"; job: number; wav: Wav; picture: Picture; codes: Int32Array; facts: Facts }
  | { kind: "decoded"; job: number; wav: Wav; picture: Picture }
  | { kind: "ready"; sr: number; latency: number } // of the network
  | { kind: "recorded"; wav: Wav | null }
  | { kind: "error"; job: number; sentence: string };

const SECONDS = 4; // of sound that are worked on at a time
const SHOWN = 10; // seconds whose codes are shown
const TOO_LATE = 0.25; // seconds: where so much more waits than the buffer holds, it is too late for it
const WARM = 3; // seconds at most that are spent before the first hop: a browser makes code fast while it runs

const post = (message: FromWorker): void => (self as unknown as Worker).postMessage(message);
const graphs = new Map<string, Promise<Graph>>();

function graph(name: string): Promise<Graph> {
  const found = graphs.get(name) ?? Graph.load(`models/${name}.onnx`);
  graphs.set(name, found);
  found.catch(() => graphs.delete(name));
  return found;
}

let settings: Settings = { strength: 1, background: 0, lost: 0 };
let live = false;
let wanted = false; // what was recorded
let job = 0; // the last one that was asked for: others end

/** Lets messages in. */
const channel = new MessageChannel();
let turn: () => void = () => {};
channel.port1.onmessage = () => turn();
const pause = (): Promise<void> =>
  new Promise((resolve) => {
    turn = resolve;
    channel.port2.postMessage(0);
  });

/** Cleans a file: a first pass hears how loud it is, a second one cleans. Memory does not grow with its length. */
async function clean(wav: Wav, strength: number, background: number, mine: number): Promise<void> {
  const began = performance.now();
  const net = await graph("studio16k");
  const size = Math.round(SECONDS * wav.sr);
  const powers: number[][] = Array.from({ length: wav.channels }, () => []);
  const asItWas = new Painter(wav.sr, wav.frames);
  for (let at = 0; at < wav.frames; at += size) {
    const block = await read(wav, at, size);
    block.forEach((row, c) => {
      for (let i = 0; i < row.length; i += wav.sr) powers[c].push(activePower(row.subarray(i, i + wav.sr), wav.sr));
    });
    asItWas.add(block, at + size >= wav.frames);
    if (mine !== job) return;
    post({ kind: "progress", job, done: (0.05 * at) / wav.frames });
  }
  post({ kind: "looked", job, picture: asItWas.picture });
  const session = new Session(net, wav.sr, powers.map(levelOf), strength, background);
  const coding: Coding = wav.coding === "pcm8" ? "pcm16" : wav.coding;
  const writer = new Writer(wav.sr, wav.channels, coding);
  const painter = new Painter(wav.sr, wav.frames);
  for (let at = 0; at < wav.frames + size; at += size) {
    const last = at >= wav.frames;
    const out = last ? await session.finish() : await session.push(await read(wav, at, size));
    if (mine !== job) return writer.drop();
    await writer.add(out);
    painter.add(out, last);
    if (!last) post({ kind: "progress", job, done: 0.05 + (0.95 * at) / wav.frames });
  }
  const seconds = (performance.now() - began) / 1000;
  post({ kind: "cleaned", job, wav: await writer.finish(), picture: painter.picture, seconds });
}

/** Reads blocks of a recording for a job that may be stopped. */
const blocksOf = (wav: Wav, mine: number) => async (from: number, count: number): Promise<Float32Array[]> => {
  await pause();
  if (mine !== job) throw new Stopped();
  post({ kind: "progress", job, done: from / wav.frames });
  return read(wav, from, count);
};

/** Looks for what is damaged in each channel. */
async function find(wav: Wav, mine: number): Promise<void> {
  const { sr, frames, channels } = wav;
  const found = await findDamage(sr, frames, channels, blocksOf(wav, mine));
  const gaps = found.flatMap((damage, channel) =>
    damage.gaps.map(([a, b]) => ({ from: a / sr, to: b / sr, channel })),
  );
  post({ kind: "found", job, gaps, peaks: found.map(({ peaks }) => peaks) });
}

/** Puts peaks back that an overload took. They pass full scale, so the result holds floats. */
async function declip(wav: Wav, peaks: Peaks[], mine: number): Promise<void> {
  const { sr, frames, channels, coding } = wav;
  const writer = new Writer(sr, channels, coding === "float64" ? coding : "float32");
  for await (const block of declipped(sr, frames, peaks, blocksOf(wav, mine))) await writer.add(block);
  post({ kind: "declipped", job, wav: await writer.finish() });
}

/** Fills gaps of a cleaned recording. Only what is near them is read, and replaced. Those near each other go together. */
async function fillGaps(cleaned: Wav, noisy: Wav, gaps: Gap[], mine: number): Promise<void> {
  const net = await graph("restore16k-filler");
  const { sr, frames, channels } = cleaned;
  const unit = sr / divisor(sr, SR); // samples after which the moments of both rates meet again
  const groups: { c: number; chunk: number; own: [number, number][]; all: [number, number][] }[] = [];
  for (let c = 0; c < channels; c++) {
    const all = gaps
      .filter(({ channel }) => channel === undefined || channel === c)
      .map(({ from, to }): [number, number] => [Math.round(from * sr), Math.min(frames, Math.round(to * sr))])
      .sort((x, y) => x[0] - y[0]);
    for (const gap of all) {
      const chunk = Math.floor(Math.floor((gap[0] * SR) / sr / HOP) / CHUNK);
      const last = groups.at(-1);
      if (last?.c === c && last.chunk === chunk) last.own.push(gap);
      else groups.push({ c, chunk, own: [gap], all });
    }
  }
  let wav = cleaned;
  for (const [g, { c, chunk, own, all }] of groups.entries()) {
    const first = Math.floor((Math.max(0, chunk * CHUNK - AROUND) * HOP * sr) / SR / unit) * unit;
    const end = Math.ceil(((chunk + 1) * CHUNK + AROUND) * HOP * (sr / SR));
    const block = await read(wav, first, end - first);
    const low = (rows: Float32Array[]): Float32Array => new Resampler(sr, SR).through([rows[c]], true)[0];
    const [row, rough] = [low(block), low(await read(noisy, first, end - first))];
    const marked = (list: [number, number][]): Uint8Array => {
      const mask = new Uint8Array(row.length);
      const place = (x: number): number => Math.max(0, ((x - first) * SR) / sr);
      for (const [a, b] of list) mask.fill(1, Math.floor(place(a)), Math.ceil(place(b)));
      return mask;
    };
    const chosen = marked(own);
    const made = await fill(net, Float64Array.from(row), Float64Array.from(rough), marked(all));
    const [change] = new Resampler(SR, sr).through([row.map((x, i) => (chosen[i] ? made[i] - x : 0))], true);
    block[c] = block[c].map((x, i) => x + (change[i] ?? 0));
    const width = WIDTHS[wav.coding] * channels;
    const [begin, rest] = [wav.start + first * width, wav.start + (first + block[0].length) * width];
    const { blob } = wav;
    const parts = [blob.slice(0, begin), bytes(block, wav.coding), blob.slice(rest)];
    wav = { ...wav, blob: new Blob(parts, { type: "audio/wav" }) };
    post({ kind: "progress", job, done: (g + 1) / groups.length });
    await pause();
    if (mine !== job) return;
  }
  const painter = new Painter(sr, frames);
  const size = Math.round(SECONDS * sr);
  for (let at = 0; at < frames; at += size) painter.add(await read(wav, at, size), at + size >= frames);
  post({ kind: "filled", job, wav, picture: painter.picture });
}

async function pictured(sound: Float32Array, sr: number): Promise<{ wav: Wav; picture: Picture }> {
  const painter = new Painter(sr, sound.length);
  painter.add([sound], true);
  const writer = new Writer(sr, 1, "float32");
  await writer.add([sound]);
  return { wav: await writer.finish(), picture: painter.picture };
}

/** The beginning of a recording -> its codes (codebooks, frames), row by row, and the sound they stand for. */
async function encode(wav: Wav): Promise<void> {
  const net = await graph("voice16k-encoder");
  const { sr, hop } = net.facts;
  const block = await read(wav, 0, SHOWN * wav.sr);
  const mono = block[0].map((_, i) => block.reduce((sum, row) => sum + row[i], 0) / block.length);
  const [low] = new Resampler(wav.sr, sr).through([mono], true);
  const count = Math.max(2, Math.floor(low.length / hop));
  const sound = new Float32Array(count * hop);
  sound.set(low.subarray(0, sound.length));
  const codes = (await net.map("wav", sound, [1, sound.length])) as BigInt64Array;
  post({ kind: "encoded", job, codes: Int32Array.from(codes, Number), facts: net.facts, ...(await pictured(sound, sr)) });
}

/** Codes -> sound. A code of -1 says nothing. */
async function decode(codes: Int32Array): Promise<void> {
  const net = await graph("voice16k-decoder");
  const { codebooks, sr } = net.facts;
  const whole = BigInt64Array.from(codes, BigInt);
  const sound = (await net.map("codes", whole, [1, codebooks, codes.length / codebooks])) as Float32Array;
  post({ kind: "decoded", job, ...(await pictured(sound, sr)) });
}

/** What is between the microphone and the speaker: `push` gives the changed sound of what is certain. */
interface Voice {
  strength: number;
  lost?: number;
  readonly waiting: number; // samples that are in and not yet out
  push(wav: Float32Array): Promise<Tracks>;
}

/** What the live chain is made of: facts of its network, and a new voice. */
async function voices(talk: boolean): Promise<{ facts: Facts; voice: () => Voice }> {
  if (!talk) {
    const net = await graph("base16k");
    return { facts: net.facts, voice: () => stageOf(net, settings.strength) };
  }
  const [encoder, decoder] = await Promise.all(["encoder", "decoder"].map((part) => graph(`voice16k-live-${part}`)));
  return { facts: encoder.facts, voice: () => new Talk(encoder, decoder) };
}

/** Runs a network on silence until it takes less than half of the time that there is. */
async function warmUp(voice: Voice, { hop, sr }: Facts): Promise<void> {
  const few = 20; // hops
  const enough = (0.5 * 1000 * few * hop) / sr; // milliseconds
  const began = performance.now();
  for (let now = began, took = Infinity; took > enough && now < began + 1000 * WARM; ) {
    await voice.push(new Float32Array(few * hop));
    [now, took] = [performance.now(), performance.now() - now];
  }
}

/** The network of the live chain: takes samples from one ring, puts what happens to them into another. */
async function stream(wiring: Wiring, sr: number, buffer: number, talk: boolean): Promise<void> {
  const { facts, voice } = await voices(talk);
  const [from, to, recorded] = [wiring.toWorker, wiring.fromWorker, wiring.recorded].map((m) => new Ring(m));
  const panel = new Float32Array(wiring.panel);
  const hop = facts.hop;
  await warmUp(voice(), facts);
  let stage = voice();
  let held: Float32Array[] = [new Float32Array(0)]; // the network's input, until it is answered
  let writer = new Writer(sr, 1, "pcm16");
  let writing: Promise<void> = Promise.resolve(); // the disk may take its time, the network may not
  const then = (work: () => Promise<void>): void => {
    writing = writing.then(work).catch((error) => post({ kind: "error", job, sentence: explain(error) }));
  };

  const put = (change: Float32Array, above: Float32Array, low: Float32Array): void => {
    const packed = new Float32Array(3 * change.length);
    const keep = talk ? 1 : 1 - settings.background;
    for (let i = 0; i < change.length; i++) {
      packed[3 * i] = keep * change[i];
      packed[3 * i + 1] = keep * above[i];
      packed[3 * i + 2] = low[i];
    }
    if (to.free >= packed.length) to.write(packed, packed.length);
    else panel[GAUGES.lost] += change.length; // nobody reads: the audio has stopped
  };

  live = true;
  post({ kind: "ready", sr: facts.sr, latency: facts.latency });
  while (live) {
    from.wait(hop - 1, 50);
    const began = performance.now();
    if (from.filled > (buffer + TOO_LATE) * facts.sr) {
      // Too late for what waits: it goes through unchanged, and the network begins anew behind it.
      const count = from.filled - hop;
      from.read(new Float32Array(count), count);
      const nothing = new Float32Array(stage.waiting + count);
      put(nothing, nothing, nothing);
      stage = voice();
      held = [new Float32Array(0)];
    } else if (from.filled >= hop) {
      const sound = new Float32Array(hop);
      from.read(sound, hop);
      stage.strength = settings.strength;
      stage.lost = settings.lost;
      const { sound: cleaned, above } = await stage.push(sound);
      const low = joined([...held, sound]);
      put(cleaned.map((x, i) => x - low[i]), above.map((x) => x - 1), low);
      held = [low.slice(cleaned.length)];
      const load = (performance.now() - began) / ((1000 * hop) / facts.sr);
      panel[GAUGES.load] += 0.05 * (load - panel[GAUGES.load]);
      panel[GAUGES.worst] = Math.max(panel[GAUGES.worst], load);
    }
    if (recorded.filled > sr / 4 || wanted) {
      const part = new Float32Array(recorded.filled);
      recorded.read(part, part.length);
      const mine = writer;
      then(() => mine.add([part]));
    }
    if (wanted) {
      const mine = writer;
      then(async () => {
        const wav = await mine.finish();
        post({ kind: "recorded", wav: wav.frames ? wav : null });
      });
      writer = new Writer(sr, 1, "pcm16");
      wanted = false;
    }
    await pause();
  }
}

const heard = async ({ data }: MessageEvent<ToWorker>): Promise<void> => {
  if ("job" in data) job = data.job;
  const mine = job;
  try {
    if (data.kind === "file") await clean(data.wav, data.strength, data.background, mine);
    else if (data.kind === "find") await find(data.wav, mine);
    else if (data.kind === "declip") await declip(data.wav, data.peaks, mine);
    else if (data.kind === "fill") await fillGaps(data.wav, data.noisy, data.gaps, mine);
    else if (data.kind === "encode") await encode(data.wav);
    else if (data.kind === "decode") await decode(data.codes);
    else if (data.kind === "settings") settings = data;
    else if (data.kind === "keep") wanted = true;
    else if (data.kind === "stop") {
      live = false;
      job++;
    } else {
      settings = data;
      await stream(data.wiring, data.sr, data.buffer, data.talk);
    }
  } catch (error) {
    if (error instanceof Stopped) return;
    post({ kind: "error", job: mine, sentence: explain(error) });
  }
};

// onnxruntime's own threads load this file too, and listen for themselves
if (!self.name.startsWith("em-pthread")) self.onmessage = heard;
