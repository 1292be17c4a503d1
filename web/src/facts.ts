/** What a graph says of itself. onnxruntime shows a page no metadata, so it is read from the file. */
import { Sentence } from "./errors";

const FORMAT = 1; // of the graphs; as in wavelldm/light/denoiser.py

/** What a graph says of itself, in its metadata. */
export interface Facts {
  format: number;
  name: string;
  form: "stream" | "recording" | "whole" | "encoder" | "decoder" | "live encoder" | "live decoder" | "filler";
  sr: number;
  hop: number;
  taps: number; // frames that it sees before the present one
  ahead: number; // frames that it looks ahead
  latency: number; // samples at its own rate that a stream is late
  chunk: number; // frames of one call
  codebooks: number; // of a codec, and ...
  levels: number[]; // ... how many values each number of a code has
  hash: string; // of the weights it was made from
  weights: string[]; // files beside it, in which they lie
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
