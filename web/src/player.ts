/** Plays two recordings of the same length at once, of which one is heard. Reads them piece by piece. */
import { contextAt } from "./page";
import { read, type Wav } from "./wav";

const PIECE = 0.5; // seconds
const AHEAD = 1.2; // seconds that are scheduled
const FADE = 0.01; // seconds from one recording to the other

export class Player {
  private context: AudioContext | null = null;
  private gains: GainNode[] = [];
  private sources: AudioBufferSourceNode[] = [];
  private wavs: (Wav | null)[] = [null, null];
  private heard = 0;
  private began = 0; // time of the context at which sample 0 would have sounded
  private next = 0; // sample that is scheduled next
  private at = 0; // sample, while it does not play
  private turn = 0; // raised by whatever makes earlier scheduling void
  playing = false;

  constructor(private readonly ended: () => void) {}

  /** A new pair; the second may come later. */
  load(before: Wav, after: Wav | null = null): void {
    const again = this.playing && this.wavs[0] === before;
    this.pause();
    if (this.wavs[0] !== before) this.at = 0;
    if (this.wavs[0]?.sr !== before.sr) {
      void this.context?.close();
      this.context = null;
    }
    this.wavs = [before, after];
    if (again) void this.play();
  }

  get seconds(): number {
    const wav = this.wavs[0];
    if (!wav) return 0;
    if (!this.playing || !this.context) return this.at / wav.sr;
    return Math.min(wav.frames / wav.sr, Math.max(this.at / wav.sr, this.context.currentTime - this.began));
  }

  hear(which: number): void {
    this.heard = which;
    this.gains.forEach((gain, i) => {
      const now = gain.context.currentTime;
      gain.gain.cancelScheduledValues(now);
      gain.gain.setValueAtTime(gain.gain.value, now);
      gain.gain.linearRampToValueAtTime(i === which ? 1 : 0, now + FADE);
    });
  }

  async play(): Promise<void> {
    const [wav] = this.wavs;
    if (!wav || this.playing) return;
    if (!this.context) {
      const context = (this.context = contextAt(wav.sr));
      this.gains = [0, 1].map(() => {
        const gain = context.createGain();
        gain.connect(context.destination);
        return gain;
      });
    }
    if (this.at >= wav.frames) this.at = 0;
    this.gains.forEach((gain, i) => (gain.gain.value = i === this.heard ? 1 : 0));
    this.playing = true;
    await this.context.resume();
    await this.schedule();
  }

  pause(): void {
    const wav = this.wavs[0];
    if (wav) this.at = Math.round(this.seconds * wav.sr);
    this.playing = false;
    this.turn++;
    for (const source of this.sources) source.stop();
    this.sources = [];
  }

  async seek(seconds: number): Promise<void> {
    const again = this.playing;
    this.pause();
    const wav = this.wavs[0];
    if (wav) this.at = Math.max(0, Math.min(wav.frames - 1, Math.round(seconds * wav.sr)));
    if (again) await this.play();
  }

  private async schedule(): Promise<void> {
    const mine = ++this.turn;
    const [wav] = this.wavs;
    const context = this.context;
    if (!wav || !context) return;
    this.next = this.at;
    this.began = Infinity; // until the first piece is there
    while (mine === this.turn) {
      const time = context.currentTime - this.began;
      if (time >= wav.frames / wav.sr) {
        this.pause();
        this.at = wav.frames;
        this.ended();
        return;
      }
      if (this.next < wav.frames && (this.began === Infinity || this.next / wav.sr < time + AHEAD)) {
        const size = Math.round(PIECE * wav.sr);
        const blocks = await Promise.all(this.wavs.map((w) => (w ? read(w, this.next, size) : null)));
        if (mine !== this.turn) return;
        if (this.began === Infinity) this.began = context.currentTime + 0.05 - this.next / wav.sr;
        blocks.forEach((block, i) => {
          if (!block?.[0].length) return;
          const buffer = context.createBuffer(block.length, block[0].length, wav.sr);
          block.forEach((row, c) => buffer.copyToChannel(row as Float32Array<ArrayBuffer>, c));
          const source = context.createBufferSource();
          source.buffer = buffer;
          source.connect(this.gains[i]);
          source.onended = () => (this.sources = this.sources.filter((other) => other !== source));
          source.start(Math.max(context.currentTime, this.began + this.next / wav.sr));
          this.sources.push(source);
        });
        this.next += size;
      } else await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
