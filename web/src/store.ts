/** Room on the disk for sound that is too long for memory: files that only this page sees (origin private file system). */

import { Sentence } from "./errors";

const OLD = 2; // files of a thread that are kept: what is heard, and what takes its place

/** The folder of this thread. Folders that closed pages left behind go away; a lock says whose page is still open. */
async function opened(): Promise<FileSystemDirectoryHandle> {
  const root = await navigator.storage.getDirectory();
  const mine = `sound-${crypto.randomUUID()}`;
  await new Promise<void>((resolve) => {
    void navigator.locks.request(mine, () => (resolve(), new Promise(() => {})));
  });
  const held = new Set((await navigator.locks.query()).held?.map((lock) => lock.name));
  for await (const name of root.keys()) {
    if (name.startsWith("sound-") && !held.has(name)) await root.removeEntry(name, { recursive: true }).catch(() => null);
  }
  return root.getDirectoryHandle(mine, { create: true });
}

let folder: Promise<FileSystemDirectoryHandle | null> | null = null;
let count = 0;

/** A file that grows. */
export class Spill {
  private constructor(
    private readonly handle: FileSystemFileHandle,
    private readonly stream: FileSystemWritableFileStream,
  ) {}

  /** A new file that begins with `head`, or null where the browser lends no disk (private windows, older browsers). */
  static async open(head: ArrayBuffer): Promise<Spill | null> {
    const place = await (folder ??= opened().catch(() => null));
    if (!place) return null;
    try {
      const handle = await place.getFileHandle(String(count++), { create: true });
      await place.removeEntry(String(count - 1 - OLD)).catch(() => null);
      const made = new Spill(handle, await handle.createWritable());
      await made.stream.write(head);
      return made;
    } catch {
      return null;
    }
  }

  async write(data: Blob): Promise<void> {
    await this.stream.write(data).catch(() => {
      throw new Sentence("The disk has no room for the sound. Make some room, and try again.");
    });
  }

  /** Ends the file, with another `head`. */
  async finish(head: ArrayBuffer): Promise<File> {
    await this.stream.write({ type: "write", position: 0, data: head });
    await this.stream.close();
    return this.handle.getFile();
  }

  async drop(): Promise<void> {
    await this.stream.abort().catch(() => null);
  }
}
