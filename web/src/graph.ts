/** A graph that `wavelldm export --streaming` wrote, run by onnxruntime in WebAssembly on one thread. */
import * as ort from "onnxruntime-web/wasm";
import { Sentence } from "./errors";

const FORMAT = 1; // of the graphs; as in wavelldm/light/denoiser.py

/** What a graph says of itself, in its metadata. */
export interface Facts {
  format: number;
  name: string;
  form: "stream" | "recording" | "whole";
  sr: number;
  hop: number;
  taps: number; // frames that it sees before the present one
  ahead: number; // frames that it looks ahead
  latency: number; // samples at its own rate that a stream is late
  chunk: number; // frames of one call
  hash: string; // of the weights it was made from
}

export type States = Record<string, Float32Array>;
type Inputs = Record<string, { data: Float32Array | BigInt64Array; dims: number[] }>;

/** A file that the server keeps packed: the service worker keeps it so too, and it is unpacked here. */
async function unpacked(response: Response): Promise<ArrayBuffer> {
  if (!response.body) throw new Sentence("A part of the page is empty. Reload the page.");
  return new Response(response.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

export async function fetched(url: string): Promise<Response> {
  const response = await fetch(url).catch(() => null);
  if (!response?.ok) {
    throw new Sentence(`${url.split("/").pop()} could not be loaded. Start \`wavelldm web\` again and reload the page.`);
  }
  return response;
}

/** A module with one instruction of the kind that onnxruntime needs. */
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);

let runtime: Promise<void> | null = null;

function ready(): Promise<void> {
  runtime ??= (async () => {
    if (typeof WebAssembly === "undefined" || !WebAssembly.validate(SIMD)) {
      throw new Sentence("This browser has no WebAssembly SIMD. Update it, or use a current Chrome, Edge or Firefox.");
    }
    ort.env.wasm.wasmBinary = await unpacked(await fetched("ort.wasm.gz"));
    ort.env.wasm.numThreads = 1;
    ort.env.logLevel = "error";
  })();
  runtime.catch(() => (runtime = null)); // another try may succeed
  return runtime;
}

/** The metadata of an ONNX file: field 14 of its outermost message holds pairs of a key (1) and a value (2). */
export function metadata(file: Uint8Array): Record<string, string> {
  const found: Record<string, string> = {};
  let at = 0;
  const number = (): number => {
    let value = 0;
    for (let scale = 1; at < file.length; scale *= 128) {
      const byte = file[at++];
      value += (byte & 127) * scale;
      if (byte < 128) break;
    }
    return value;
  };
  const fields = (end: number, take: (field: number, from: number, to: number) => void): void => {
    while (at < end) {
      const key = number();
      const kind = key & 7;
      if (kind === 2) {
        const size = number();
        const from = at;
        take(Math.floor(key / 8), from, from + size);
        at = from + size;
      } else if (kind === 0) number();
      else at += kind === 1 ? 8 : kind === 5 ? 4 : file.length;
    }
  };
  const text = (from: number, to: number): string => new TextDecoder().decode(file.subarray(from, to));
  fields(file.length, (field, from, to) => {
    if (field !== 14) return;
    const pair = ["", ""];
    at = from;
    fields(to, (part, a, b) => (pair[part - 1] = text(a, b)));
    found[pair[0]] = pair[1];
  });
  return found;
}

export function factsOf(file: Uint8Array, name: string): Facts {
  let facts: Facts;
  try {
    facts = JSON.parse(metadata(file)["wavelldm"]);
  } catch {
    throw new Sentence(`${name} is no graph of this program. Install wavelldm again, and reload the page.`);
  }
  if (facts.format !== FORMAT || facts.form === "whole") {
    throw new Sentence(`${name} belongs to another version of this program. Install wavelldm again, and reload the page.`);
  }
  return facts;
}

export class Graph {
  private constructor(
    readonly facts: Facts,
    private readonly session: ort.InferenceSession,
  ) {}

  static async load(url: string): Promise<Graph> {
    const [response] = await Promise.all([fetched(url), ready()]);
    const file = new Uint8Array(await response.arrayBuffer());
    const name = url.split("/").pop() ?? url;
    const facts = factsOf(file, name);
    try {
      return new Graph(facts, await ort.InferenceSession.create(file, { graphOptimizationLevel: "all" }));
    } catch (error) {
      const reason = String(error).split("\n")[0].slice(0, 120);
      throw new Sentence(`${name} cannot be run by this browser (${reason}). Reload the page, or use another browser.`);
    }
  }

  /** Of each input that has an output of the same name, the state before the first call. */
  silence(): States {
    const states: States = {};
    for (const { name, dims } of this.stateInputs()) states[name] = new Float32Array(dims.reduce((a, b) => a * b, 1));
    return states;
  }

  private stateInputs(): { name: string; dims: number[] }[] {
    return this.session.inputMetadata.flatMap((put) =>
      put.isTensor && this.session.outputNames.includes(`${put.name}_out`)
        ? [{ name: put.name, dims: put.shape.map(Number) }]
        : [],
    );
  }

  /** The cleaned samples, and the gains of the highest band, one a frame; `states` move on. */
  async run(states: States, inputs: Inputs): Promise<{ cleaned: Float32Array; top: Float32Array }> {
    const feeds: Record<string, ort.Tensor> = {};
    for (const { name, dims } of this.stateInputs()) feeds[name] = new ort.Tensor("float32", states[name], dims);
    for (const [name, { data, dims }] of Object.entries(inputs)) {
      feeds[name] =
        data instanceof Float32Array ? new ort.Tensor("float32", data, dims) : new ort.Tensor("int64", data, dims);
    }
    const found = await this.session.run(feeds);
    for (const name in states) states[name] = found[`${name}_out`].data as Float32Array;
    return { cleaned: found["cleaned"].data as Float32Array, top: found["top"].data as Float32Array };
  }
}
