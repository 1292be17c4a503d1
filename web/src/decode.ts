/** Any sound file -> samples in a Blob. WAV files are read where they lie; others are decoded by the browser, whole. */
import { Sentence } from "./errors";
import { opened, Writer, type Wav } from "./wav";

const MOST = 64e6; // bytes of a packed file: an hour of MP3, ten minutes of FLAC

/** The sample rate that a file of another kind than WAV names in its beginning, or 48,000. */
export function rateOf(head: Uint8Array): number {
  const text = String.fromCharCode(...head.subarray(0, 64));
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  if (text.startsWith("fLaC") && head.length > 21) return view.getUint32(18) >>> 12;
  const vorbis = text.indexOf("\x01vorbis");
  if (text.startsWith("OggS") && vorbis > 0) return view.getUint32(vorbis + 12, true);
  let at = 0;
  if (text.startsWith("ID3")) at = 10 + [6, 7, 8, 9].reduce((size, i) => size * 128 + head[i], 0); // tags
  if (head[at] === 255 && (head[at + 1] & 0xe6) === 0xe2) {
    const version = (head[at + 1] >> 3) & 3; // of MPEG: 2.5, none, 2, 1
    return ([44100, 48000, 32000][(head[at + 2] >> 2) & 3] ?? 48000) / [4, 1, 2, 1][version];
  }
  return 48000;
}

export async function decoded(file: File): Promise<Wav> {
  if (!file.size) throw new Sentence(`${file.name} is empty. Choose another file.`);
  const wav = await opened(file);
  if (wav) return wav;
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
    writer.add(rows.map((row) => row.subarray(at, at + (1 << 20))));
  }
  const found = writer.finish();
  if (!found.frames) throw new Sentence(`${file.name} holds no sound. Choose another file.`);
  return found;
}
