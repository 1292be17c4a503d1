/**
 * Any sound file -> samples in a Blob. WAV files are read where they lie. MP3, FLAC and Ogg files are decoded packet by
 * packet, so both may have any length. Other kinds, and damaged files, are decoded by the browser, whole.
 */
import { Sentence, Stopped } from "./errors";
import { mp3Frame, packed, tagged, type Packed } from "./packets";
import { opened, Writer, type Wav } from "./wav";

const MOST = 64e6; // bytes of a file that is decoded whole
const SECONDS = 4; // that are written at a time
const QUEUE = 64; // packets that a decoder may have before it

/** The sample rate that a file of another kind than WAV names in its beginning, or 48,000. */
export function rateOf(head: Uint8Array): number {
  const text = String.fromCharCode(...head.subarray(0, 64));
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (text.startsWith("fLaC") && head.length > 21) return view.getUint32(18) >>> 12;
  const vorbis = text.indexOf("\x01vorbis");
  if (text.startsWith("OggS") && vorbis > 0) return view.getUint32(vorbis + 12, true);
  return mp3Frame(head.subarray(tagged(head)))?.sr ?? 48000;
}

/** Told what part of a file is done; it throws `Stopped` where nobody wants the rest. */
export type Told = (done: number) => void;

/** Samples of channel `c` from `from` on. Whole numbers stay exact: browsers differ in what they call full scale. */
function copy(data: AudioData, c: number, from: number, to: Float32Array): void {
  const part = { frameOffset: from, frameCount: to.length };
  if (data.format === "s16" || data.format === "s16-planar") {
    const step = data.format === "s16" ? data.numberOfChannels : 1;
    const whole = new Int16Array(step * to.length);
    data.copyTo(whole, { planeIndex: step === 1 ? c : 0, ...part });
    for (let i = 0; i < to.length; i++) to[i] = whole[step === 1 ? i : step * i + c] / 32768;
  } else data.copyTo(to as Float32Array<ArrayBuffer>, { planeIndex: c, format: "f32-planar", ...part });
}

/** Packet by packet. */
async function inPieces(file: File, source: Packed, told: Told): Promise<Wav> {
  const { codec, description, sr, channels, coding } = source;
  const writer = new Writer(sr, channels, coding);
  const rows = Array.from({ length: channels }, () => new Float32Array(SECONDS * sr));
  const ready: AudioData[] = [];
  let fault: unknown = null;
  let [skip, left, have] = [source.skip, source.frames, 0];
  let wake = (): void => {};
  const decoder = new AudioDecoder({
    output: (data) => ready.push(data),
    error: (error) => {
      fault = error;
      wake();
    },
  });
  decoder.addEventListener("dequeue", () => wake());
  /** Writes what the decoder has ready. */
  async function write(): Promise<void> {
    for (const data of ready.splice(0)) {
      if (data.numberOfChannels !== channels || data.sampleRate !== sr) fault = new Error("the sound changes its form");
      let at = Math.min(skip, data.numberOfFrames);
      skip -= at;
      while (at < data.numberOfFrames && left > 0 && !fault) {
        const frameCount = Math.min(data.numberOfFrames - at, left, rows[0].length - have);
        rows.forEach((row, c) => copy(data, c, at, row.subarray(have, have + frameCount)));
        [at, have, left] = [at + frameCount, have + frameCount, left - frameCount];
        if (have === rows[0].length) {
          await writer.add(rows);
          have = 0;
        }
      }
      data.close();
    }
    if (fault) throw fault;
  }
  try {
    decoder.configure({ codec, description, sampleRate: sr, numberOfChannels: channels });
    let count = 0;
    for await (const data of source.packets) {
      if (fault) throw fault;
      decoder.decode(new EncodedAudioChunk({ type: "key", timestamp: 1000 * count++, data }));
      if (count % QUEUE) continue;
      while (decoder.decodeQueueSize >= QUEUE && !fault) {
        await new Promise<void>((resolve) => (wake = resolve));
      }
      await write();
      told(source.read() / file.size);
    }
    await decoder.flush();
    await write();
    await writer.add(rows.map((row) => row.subarray(0, have)));
    return await writer.finish();
  } catch (error) {
    await writer.drop();
    throw error;
  } finally {
    for (const data of ready) data.close();
    if (decoder.state !== "closed") decoder.close();
  }
}

async function whole(file: File, told: Told): Promise<Wav> {
  if (file.size > MOST) {
    throw new Sentence(`${file.name} is too long to be unpacked at once. Save it as a WAV file; that may have any length.`);
  }
  const data = await file.arrayBuffer();
  const sr = rateOf(new Uint8Array(data, 0, Math.min(data.byteLength, 1 << 20)));
  const rate = Math.min(192000, Math.max(8000, sr));
  let sound: AudioBuffer;
  try {
    sound = await new OfflineAudioContext(1, 1, rate).decodeAudioData(data);
  } catch {
    throw new Sentence(`${file.name} is no sound file that this browser can read. Choose WAV, FLAC, MP3, Ogg or M4A.`);
  }
  const writer = new Writer(rate, sound.numberOfChannels, "pcm24");
  const rows = Array.from({ length: sound.numberOfChannels }, (_, c) => sound.getChannelData(c));
  for (let at = 0; at < sound.length; at += 1 << 20) {
    await new Promise((resolve) => setTimeout(resolve)); // the page stays awake
    told(at / sound.length);
    await writer.add(rows.map((row) => row.subarray(at, at + (1 << 20))));
  }
  return writer.finish();
}

export async function decoded(file: File, told: Told = () => {}): Promise<Wav> {
  if (!file.size) throw new Sentence(`${file.name} is empty. Choose another file.`);
  const wav = await opened(file);
  if (wav) return wav;
  let found: Wav | null = null;
  if (typeof AudioDecoder !== "undefined") {
    try {
      const source = await packed(file);
      if (source) found = await inPieces(file, source, told);
    } catch (error) {
      if (error instanceof Stopped || error instanceof Sentence) throw error;
    }
  }
  found ??= await whole(file, told);
  if (!found.frames) throw new Sentence(`${file.name} holds no sound. Choose another file.`);
  return found;
}
