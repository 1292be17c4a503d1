/** Numbers in shared memory that one thread writes and another reads, without a lock. */

const HEAD = 8; // bytes: how many were written, how many were read (both count on beyond 32 bits by turning over)

export class Ring {
  readonly size: number;
  private readonly counts: Int32Array;
  private readonly data: Float32Array;

  constructor(readonly memory: SharedArrayBuffer) {
    this.counts = new Int32Array(memory, 0, 2);
    this.data = new Float32Array(memory, HEAD);
    this.size = this.data.length; // a power of two
  }

  static memory(atLeast: number): SharedArrayBuffer {
    return new SharedArrayBuffer(HEAD + 4 * 2 ** Math.ceil(Math.log2(atLeast)));
  }

  /** Numbers that wait to be read. */
  get filled(): number {
    return (Atomics.load(this.counts, 0) - Atomics.load(this.counts, 1)) | 0;
  }

  get free(): number {
    return this.size - this.filled;
  }

  /** Writes the first `n` of `values`, for which there must be room. */
  write(values: Float32Array, n: number): void {
    const at = Atomics.load(this.counts, 0);
    const mask = this.size - 1;
    for (let i = 0; i < n; i++) this.data[(at + i) & mask] = values[i];
    Atomics.store(this.counts, 0, (at + n) | 0);
    Atomics.notify(this.counts, 0);
  }

  /** Reads `n`, which must be there, into the beginning of `values`. */
  read(values: Float32Array, n: number): void {
    const at = Atomics.load(this.counts, 1);
    const mask = this.size - 1;
    for (let i = 0; i < n; i++) values[i] = this.data[(at + i) & mask];
    Atomics.store(this.counts, 1, (at + n) | 0);
  }

  /** Waits until more than `n` numbers are there, or some milliseconds have passed. Not for the audio thread. */
  wait(n: number, milliseconds: number): void {
    const written = Atomics.load(this.counts, 0);
    if (((written - Atomics.load(this.counts, 1)) | 0) <= n) Atomics.wait(this.counts, 0, written, milliseconds);
  }
}
