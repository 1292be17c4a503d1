/** Keeps the whole page, so that it works without a network from the second visit on. The build fills in the names. */
declare const FILES: string[]; // of the page, with its models
declare const BUILD: string; // a hash of all of them

interface Extendable extends Event {
  waitUntil(promise: Promise<unknown>): void;
}
interface Fetching extends Extendable {
  request: Request;
  respondWith(response: Promise<Response>): void;
}
const here = self as unknown as {
  addEventListener(kind: string, heard: (event: Fetching) => void): void;
  skipWaiting(): Promise<void>;
  clients: { claim(): Promise<void> };
};
const CACHE = `wavelldm-${BUILD}`;

here.addEventListener("install", (event) => {
  const all = async (): Promise<void> => {
    const cache = await caches.open(CACHE);
    await cache.addAll(FILES.map((name) => new Request(name, { cache: "reload" })));
    await here.skipWaiting();
  };
  event.waitUntil(all());
});

here.addEventListener("activate", (event) => {
  const clean = async (): Promise<void> => {
    for (const name of await caches.keys()) if (name !== CACHE) await caches.delete(name);
    await here.clients.claim();
  };
  event.waitUntil(clean());
});

here.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET") return;
  const answer = async (): Promise<Response> => {
    const cache = await caches.open(CACHE);
    const kept = await cache.match(event.request, { ignoreSearch: true });
    if (kept) return kept;
    const fresh = await fetch(event.request);
    if (fresh.ok && new URL(event.request.url).pathname.includes("/models/")) await cache.put(event.request, fresh.clone());
    return fresh;
  };
  event.respondWith(answer());
});

export {};
