package org.wavelldm.core;

import java.util.concurrent.atomic.AtomicLong;

/**
 * The last samples of a sound, by their numbers from its beginning: one thread writes, others read. Nobody waits and
 * nothing is allocated. A reader that comes too late, or too early, is told so.
 */
final class Ring {
    private final float[] data;
    private final int mask;
    private final AtomicLong end = new AtomicLong(); // number of the next sample that is written
    private final AtomicLong begun = new AtomicLong(); // what is being written ends here

    Ring(int least) {
        int size = Integer.highestOneBit(Math.max(1, least - 1)) * 2;
        data = new float[size];
        mask = size - 1;
    }

    int capacity() {
        return data.length;
    }

    long end() {
        return end.get();
    }

    void write(float[] x, int from, int count) {
        long at = end.get();
        begun.set(at + count);
        for (int i = 0; i < count; i++) {
            data[(int) (at + i) & mask] = x[from + i];
        }
        end.set(at + count);
    }

    /** Go on with sample number `next`; those in between are of no meaning. */
    void skip(long next) {
        begun.set(next);
        end.set(next);
    }

    /** Samples from number `first` on; zeros before the beginning. False, if not all of them are there. */
    boolean read(long first, float[] x, int count) {
        if (first + count > end.get()) {
            return false;
        }
        for (int i = 0; i < count; i++) {
            x[i] = first + i < 0 ? 0f : data[(int) (first + i) & mask];
        }
        return begun.get() - first <= data.length; // else some were overwritten meanwhile
    }
}
