package org.wavelldm.core;

/** A queue of samples: what arrives is added at its end, what is used up is dropped from its beginning. */
final class Samples {
    private float[] data = new float[2048];
    private int start;
    private int size;

    int size() {
        return size;
    }

    void add(float[] x, int from, int count) {
        int at = room(count); // first, since it may replace `data`
        System.arraycopy(x, from, data, at, count);
    }

    void add(float[] x) {
        add(x, 0, x.length);
    }

    void zeros(int count) {
        int at = room(count);
        java.util.Arrays.fill(data, at, at + count, 0f);
    }

    private int room(int count) {
        if (start + size + count > data.length) {
            float[] target = size + count > data.length / 2 ? new float[2 * (size + count)] : data;
            System.arraycopy(data, start, target, 0, size);
            data = target;
            start = 0;
        }
        size += count;
        return start + size - count;
    }

    void drop(int count) {
        start += count;
        size -= count;
    }

    void cut(int length) {
        size = Math.min(size, length);
    }

    void copy(int from, float[] to, int at, int count) {
        System.arraycopy(data, start + from, to, at, count);
    }

    float[] take(int count) {
        float[] out = new float[count];
        copy(0, out, 0, count);
        drop(count);
        return out;
    }

    /** The sum of products with `weights`, from sample `from` on: four sums, which a processor can overlap. */
    float product(int from, float[] weights) {
        float[] x = data;
        int at = start + from;
        int fours = weights.length & ~3;
        float a = 0;
        float b = 0;
        float c = 0;
        float d = 0;
        for (int i = 0; i < fours; i += 4, at += 4) {
            a += weights[i] * x[at];
            b += weights[i + 1] * x[at + 1];
            c += weights[i + 2] * x[at + 2];
            d += weights[i + 3] * x[at + 3];
        }
        for (int i = fours; i < weights.length; i++, at++) {
            a += weights[i] * x[at];
        }
        return a + b + (c + d);
    }
}
