/** Parts that need no page, for tests and for readers who want to try them in the console: `import("./parts.js")`. */
export { Chain, FADE, GAUGES, KNOBS, PANEL } from "./chain";
export { Loudest, straighten } from "./bend";
export { declipped } from "./clip";
export { decoded, rateOf } from "./decode";
export { explain } from "./errors";
export { findDamage } from "./find";
export { Graph } from "./graph";
export { factsOf } from "./facts";
export { activePower, levelOf } from "./levels";
export { lateness } from "./live";
export { packed } from "./packets";
export { assemble, breathOf, fill, knownShare, octaves, ringing, straight } from "./restore";
export { Resampler } from "./resample";
export { Ring } from "./ring";
export { Losses, Talk } from "./talk";
export { fft, Painter } from "./spectrum";
export { bytes, opened, read, Writer } from "./wav";
