/** Overlapping windows of a recording: wavelldm/light/blocks.py. */
export interface Window {
  at: number; // sample where it begins, ...
  length: number; // ... and samples that it has
  before: number; // frames that lie before the new ones
  count: number; // new frames
}

/** `size` new frames of `hop` samples at a time, and `margin` on either side except at the ends. */
export function* windows(samples: number, hop: number, margin: number, size: number): Generator<Window> {
  let [at, before] = [0, 0];
  while (samples - at >= (before + size + margin) * hop) {
    yield { at, length: (before + size + margin) * hop, before, count: size };
    const drop = Math.max(0, before + size - margin);
    [at, before] = [at + drop * hop, before + size - drop];
  }
  const left = Math.ceil((samples - at) / hop);
  for (let start = before; start < left; start += size) {
    yield { at, length: samples - at, before: start, count: Math.min(size, left - start) };
  }
}
