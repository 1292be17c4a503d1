/** The audio thread: a processor around `Chain`. Outputs: what is heard, and the original at the same moment. */
import { Chain } from "./chain";
import { Ring } from "./ring";

declare const sampleRate: number;
declare function registerProcessor(name: string, kind: unknown): void;
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}

/** Memory that the audio thread, the worker and the page share. */
export interface Wiring {
  toWorker: SharedArrayBuffer;
  fromWorker: SharedArrayBuffer;
  recorded: SharedArrayBuffer;
  panel: SharedArrayBuffer;
}

export interface Options {
  wiring: Wiring;
  lowSr: number; // of the network
  late: number; // samples from microphone to speaker
}

class Cleaner extends AudioWorkletProcessor {
  private readonly chain: Chain;
  private readonly nothing = new Float32Array(128);
  private running = true;

  constructor({ processorOptions: { wiring, lowSr, late } }: { processorOptions: Options }) {
    super();
    const [to, from, recorded] = [wiring.toWorker, wiring.fromWorker, wiring.recorded].map((m) => new Ring(m));
    this.chain = new Chain(sampleRate, lowSr, late, to, from, recorded, new Float32Array(wiring.panel));
    this.port.onmessage = () => (this.running = false);
  }

  process(inputs: Float32Array[][], outputs: Float32Array[][]): boolean {
    const heard = outputs[0][0];
    const input = inputs[0][0] ?? (this.nothing.length === heard.length ? this.nothing : new Float32Array(heard.length));
    this.chain.process(input, heard, outputs[1][0]);
    return this.running;
  }
}

registerProcessor("cleaner", Cleaner);
