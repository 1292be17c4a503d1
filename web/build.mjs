// Builds the page into wavelldm/web: scripts bundled, onnxruntime packed, and a list that says what it was built from.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const HERE = import.meta.dirname;
const OUT = join(HERE, "../wavelldm/web");
const WEIGHTS = join(HERE, "../wavelldm/weights");
const MODELS = [
  "base16k.onnx", "base16k-mask.safetensors", "studio16k.onnx", "studio16k.safetensors",
  "voice16k-decoder.onnx", "voice16k-encoder.onnx", "voice16k.safetensors",
];
// are loaded, and kept, when somebody first wants them
const LATER = [
  "restore16k-filler.onnx", "restore16k-filler.safetensors", "restore16k-latent.safetensors",
  "voice16k-live-decoder.onnx", "voice16k-live-encoder.onnx", "voice16k-live.safetensors",
];
const WASM = join(HERE, "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm");

/** A hash of files, by their names and contents. */
function hashed(folder, names) {
  const hash = createHash("sha256");
  for (const name of [...names].sort()) hash.update(name).update("\0").update(readFileSync(join(folder, name)));
  return hash.digest("hex");
}

const sources = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json"];
sources.push(...readdirSync(join(HERE, "src")).map((name) => `src/${name}`));

// What is written by hand lies there for good; all else is built.
const KEPT = ["icon-192.png", "icon-512.png", "icon.svg", "index.html", "manifest.webmanifest", "style.css"];
for (const name of readdirSync(OUT)) if (!KEPT.includes(name)) rmSync(join(OUT, name));
writeFileSync(join(OUT, "ort.wasm.gz"), gzipSync(readFileSync(WASM), { level: 9 }));

const bundle = (names, define = {}) =>
  build({
    entryPoints: names.map((name) => join(HERE, "src", `${name}.ts`)),
    outdir: OUT,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    define,
    logLevel: "warning",
  });
await bundle(["main", "worker", "worklet", "parts"]);

const files = readdirSync(OUT);
const models = hashed(WEIGHTS, [...MODELS, ...LATER]);
const page = hashed(OUT, files);
await bundle(["sw"], {
  FILES: JSON.stringify(["./", ...files.filter((name) => name !== "index.html"), ...MODELS.map((m) => `models/${m}`)]),
  BUILD: JSON.stringify(createHash("sha256").update(page + models).digest("hex").slice(0, 16)),
});
const facts = { sources: hashed(HERE, sources), models, page };
writeFileSync(join(OUT, "build.json"), `${JSON.stringify(facts, null, 2)}\n`);
