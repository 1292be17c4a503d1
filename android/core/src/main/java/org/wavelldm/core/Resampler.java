package org.wavelldm.core;

/**
 * Another sample rate for sound that arrives in blocks; what comes out does not depend on how it was cut.
 *
 * <p>A sinc cut off by a Kaiser window (Kaiser 1974; Oppenheim and Schafer, eq. 7.75), as light/resample.py has it.
 * Sample j belongs to the moment j / out of the input, and comes out when `lookahead` more input samples are there.
 */
public final class Resampler {
    private static final int ZEROS = 64; // zero crossings on either side
    private static final double KAISER = 7.857; // what would alias is 80 dB down
    private static final double CUTOFF = 0.9608; // of the lower Nyquist frequency
    private static final int MOST_WEIGHTS = 1 << 20; // beyond, phases are interpolated
    private static final int MOST_PHASES = 512;

    public final int lookahead;
    private final int up;
    private final int down;
    private final boolean exact;
    private final float[][] filters;
    private final Samples[] held;
    private final float[] mixed;
    private long seen;
    private long made;
    private long first; // the input sample that `held` begins with

    public Resampler(int from, int to, int channels) {
        int divisor = gcd(from, to);
        up = to / divisor;
        down = from / divisor;
        lookahead = up == down ? 0 : (int) Math.ceil(ZEROS * Math.max(1.0, (double) from / to));
        held = new Samples[channels];
        for (int c = 0; c < channels; c++) {
            held[c] = new Samples();
            held[c].zeros(Math.max(0, lookahead - 1));
        }
        first = 1 - lookahead;
        exact = (long) up * (2 * lookahead + down) <= MOST_WEIGHTS;
        filters = lookahead == 0 ? new float[0][] : phases();
        mixed = new float[2 * lookahead];
    }

    /** How many samples late sound is that goes there, waits for `between` samples, and comes `back`. */
    int late(int between, Resampler back) {
        return lookahead + (int) ceiling((long) (between + back.lookahead) * back.up, back.down);
    }

    /** Block (channels, n) -> (channels, m), the samples that it completes. */
    public float[][] push(float[][] block) {
        seen += block[0].length;
        if (lookahead == 0) {
            return block;
        }
        for (int c = 0; c < held.length; c++) {
            held[c].add(block[c]);
        }
        return until(Math.max(0, ceiling((seen - lookahead) * up, down)));
    }

    /** The last samples, as if zeros followed. */
    public float[][] finish() {
        if (lookahead == 0) {
            return new float[held.length][0];
        }
        for (Samples row : held) {
            row.zeros(lookahead);
        }
        return until(ceiling(seen * up, down));
    }

    private float[][] until(long end) {
        int count = (int) Math.max(0, end - made);
        float[][] out = new float[held.length][count];
        for (int i = 0; i < count; i++) {
            long place = (made + i) * down;
            float[] weights = weights((int) (place % up));
            int from = (int) (place / up - lookahead + 1 - first);
            for (int c = 0; c < held.length; c++) {
                out[c][i] = held[c].product(from, weights);
            }
        }
        made += count;
        int drop = (int) (made * down / up - lookahead + 1 - first);
        drop = Math.min(drop, held[0].size());
        for (Samples row : held) {
            row.drop(drop);
        }
        first += drop;
        return out;
    }

    /** The filter of an output sample that lies `part` / up input samples behind one. */
    private float[] weights(int part) {
        if (exact) {
            return filters[part];
        }
        double place = (double) part / up * (filters.length - 1);
        int low = (int) place;
        float right = (float) (place - low);
        for (int i = 0; i < mixed.length; i++) {
            mixed[i] = (1 - right) * filters[low][i] + right * filters[low + 1][i];
        }
        return mixed;
    }

    private float[][] phases() {
        double ratio = Math.min(1.0, (double) up / down);
        int count = exact ? up : Math.max(16, (int) Math.ceil(MOST_PHASES * ratio));
        float[][] rows = new float[exact ? count : count + 1][2 * lookahead];
        double[] row = new double[2 * lookahead];
        for (int p = 0; p < rows.length; p++) {
            double sum = 0;
            for (int i = 0; i < row.length; i++) {
                double t = i + 1 - lookahead - (double) p / count; // input samples
                double x = Math.PI * CUTOFF * ratio * t;
                double edge = t / lookahead;
                row[i] = (x == 0 ? 1 : Math.sin(x) / x) * bessel(KAISER * Math.sqrt(Math.max(0, 1 - edge * edge)));
                sum += row[i];
            }
            for (int i = 0; i < row.length; i++) {
                rows[p][i] = (float) (row[i] / sum);
            }
        }
        return rows;
    }

    /** The modified Bessel function of order 0, by its series. */
    private static double bessel(double x) {
        double sum = 1;
        double term = 1;
        for (int k = 1; term > 1e-17 * sum; k++) {
            term *= x / (2 * k) * (x / (2 * k));
            sum += term;
        }
        return sum;
    }

    private static long ceiling(long x, long y) {
        return -Math.floorDiv(-x, y);
    }

    private static int gcd(int a, int b) {
        return b == 0 ? a : gcd(b, a % b);
    }
}
