/** How loud speech is without its pauses (ITU-T P.56): wavelldm/light/levels.py and `levels_of` of its denoiser. */

const FRAME = 0.01; // seconds between values of the envelope
const HANGOVER = 0.2; // seconds that still count as active after the envelope has fallen: gaps between words
const MARGIN_DB = 15.9; // the activity threshold lies this far under the active level (ITU-T P.56, method B)
const SILENCE_DB = -80; // an envelope under this is never active: rounding noise
const QUIETEST = -70; // dB: below this there is nothing to bring up
export const LEVEL = -26; // dB of active speech, in the middle of what the networks were trained on

/** The mean square over the active samples of one channel; 0 for silence. */
export function activePower(wav: Float32Array, sr: number): number {
  const size = Math.max(1, Math.round(FRAME * sr));
  const held = Math.round(HANGOVER / FRAME);
  const count = Math.ceil(wav.length / size);
  const sums = new Float64Array(count + 1);
  let total = 0;
  for (let t = 0; t < count; t++) {
    let sum = 0;
    const end = Math.min(wav.length, (t + 1) * size);
    for (let i = t * size; i < end; i++) {
      sum += Math.abs(wav[i]);
      total += wav[i] * wav[i];
    }
    sums[t + 1] = sums[t] + sum / size;
  }
  const reached = new Float64Array(count); // the envelope, smoothed over 50 ms, with hangover
  for (let t = 0; t < count; t++) {
    const first = Math.max(0, t - 2);
    const last = Math.min(count, t + 3);
    const envelope = (sums[last] - sums[first]) / (last - first);
    for (let k = t; k <= Math.min(count - 1, t + held); k++) reached[k] = Math.max(reached[k], envelope);
  }
  const energy = total / size;
  const floor = 10 ** (SILENCE_DB / 20);
  let threshold = floor;
  for (let round = 0; round < 30; round++) {
    const active = Math.max(1, reached.reduce((n, value) => n + (value >= threshold ? 1 : 0), 0));
    const higher = Math.max(floor, Math.sqrt(energy / active) * 10 ** (-MARGIN_DB / 20));
    if (higher === threshold) break;
    threshold = higher;
  }
  let power = 0;
  let samples = 0;
  for (let i = 0; i < wav.length; i++) {
    if (reached[Math.floor(i / size)] < threshold) continue;
    power += wav[i] * wav[i];
    samples++;
  }
  return power / Math.max(1, samples);
}

/** The level of one channel in dB from the powers of its seconds: that of the loudest tenth of them. */
export function levelOf(powers: number[]): number {
  const sorted = [...powers].sort((a, b) => b - a);
  const loudest = sorted.slice(0, Math.max(1, Math.floor(powers.length / 10)));
  const power = loudest.reduce((a, b) => a + b, 0) / loudest.length;
  return power > 10 ** (QUIETEST / 10) ? 10 * Math.log10(power) : LEVEL;
}
