/** A graph that `wavelldm export --streaming` wrote, run by onnxruntime in WebAssembly. */
import * as ort from "onnxruntime-web/wasm";
import { Sentence } from "./errors";
import { factsOf, type Facts } from "./facts";

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

/** One, or as many as the address of the worker names; they share memory, so the page must be isolated. */
const THREADS = crossOriginIsolated ? Number(new URLSearchParams(location.search).get("threads") ?? 1) : 1;

let runtime: Promise<void> | null = null;

function ready(): Promise<void> {
  runtime ??= (async () => {
    if (typeof WebAssembly === "undefined" || !WebAssembly.validate(SIMD)) {
      throw new Sentence("This browser has no WebAssembly SIMD. Update it, or use a current Chrome, Edge or Firefox.");
    }
    ort.env.wasm.wasmBinary = await unpacked(await fetched("ort.wasm.gz"));
    ort.env.wasm.numThreads = THREADS;
    ort.env.logLevel = "error";
  })();
  runtime.catch(() => (runtime = null)); // another try may succeed
  return runtime;
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
    const beside = (facts.weights ?? []).map(async (path) => {
      const found = await fetched(url.replace(/[^/]*$/, path));
      return { path, data: new Uint8Array(await found.arrayBuffer()) };
    });
    const externalData = await Promise.all(beside);
    try {
      return new Graph(facts, await ort.InferenceSession.create(file, { graphOptimizationLevel: "all", externalData }));
    } catch (error) {
      const reason = String(error).split("\n")[0].slice(0, 120);
      throw new Sentence(`${name} cannot be run by this browser (${reason}). Reload the page, or use another browser.`);
    }
  }

  /** A graph without states: one input, one output. */
  async map(name: string, data: Float32Array | BigInt64Array, dims: number[]): Promise<Float32Array | BigInt64Array> {
    const input = data instanceof Float32Array ? new ort.Tensor("float32", data, dims) : new ort.Tensor("int64", data, dims);
    const found = await this.session.run({ [name]: input });
    return found[this.session.outputNames[0]].data as Float32Array | BigInt64Array;
  }

  /** A graph without states: several inputs, and the output `name`. */
  async call(name: string, inputs: Record<string, { data: Float32Array; dims: number[] }>): Promise<Float32Array> {
    const feeds: Record<string, ort.Tensor> = {};
    for (const [key, { data, dims }] of Object.entries(inputs)) feeds[key] = new ort.Tensor("float32", data, dims);
    return (await this.session.run(feeds))[name].data as Float32Array;
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

  /** All outputs by their names; `states` move on. */
  async step(states: States, inputs: Inputs): Promise<ort.InferenceSession.ReturnType> {
    const feeds: Record<string, ort.Tensor> = {};
    for (const { name, dims } of this.stateInputs()) feeds[name] = new ort.Tensor("float32", states[name], dims);
    for (const [name, { data, dims }] of Object.entries(inputs)) {
      feeds[name] =
        data instanceof Float32Array ? new ort.Tensor("float32", data, dims) : new ort.Tensor("int64", data, dims);
    }
    const found = await this.session.run(feeds);
    for (const name in states) states[name] = found[`${name}_out`].data as Float32Array;
    return found;
  }

  /** The cleaned samples, and the gains of the highest band, one a frame; `states` move on. */
  async run(states: States, inputs: Inputs): Promise<{ cleaned: Float32Array; top: Float32Array }> {
    const found = await this.step(states, inputs);
    return { cleaned: found["cleaned"].data as Float32Array, top: found["top"].data as Float32Array };
  }
}
