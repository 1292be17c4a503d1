package org.wavelldm.core;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** The level of the speech in a recording: of the loudest tenth of its seconds, without pauses (ITU-T P.56). */
public final class Levels {
    /** dB of active speech, in the middle of what the networks were trained on. */
    public static final double USUAL = -26;

    private static final double QUIETEST = -70;
    private static final double MARGIN = 15.9; // dB that the threshold lies under the active level
    private static final double SILENCE = -80; // dB: an envelope under this is never active

    private final int rate;
    private final Samples[] held;
    private final List<List<Double>> powers = new ArrayList<>();

    public Levels(int rate, int channels) {
        this.rate = rate;
        held = new Samples[channels];
        for (int c = 0; c < channels; c++) {
            held[c] = new Samples();
            powers.add(new ArrayList<>());
        }
    }

    public void push(float[][] block) {
        for (int c = 0; c < held.length; c++) {
            held[c].add(block[c]);
            while (held[c].size() >= rate) {
                powers.get(c).add(activePower(held[c].take(rate), rate));
            }
        }
    }

    /** The level of each channel in dB. */
    public double[] finish() {
        double[] levels = new double[held.length];
        for (int c = 0; c < held.length; c++) {
            if (held[c].size() > 0) {
                powers.get(c).add(activePower(held[c].take(held[c].size()), rate));
            }
            double[] sorted = powers.get(c).stream().mapToDouble(x -> x).sorted().toArray();
            int count = Math.min(sorted.length, Math.max(1, sorted.length / 10));
            double mean = Arrays.stream(sorted, sorted.length - count, sorted.length).average().orElse(0);
            levels[c] = mean > Math.pow(10, QUIETEST / 10) ? 10 * Math.log10(mean) : USUAL;
        }
        return levels;
    }

    /** The mean square over the active samples; 0 for silence. */
    static double activePower(float[] wav, int rate) {
        int size = (int) Math.max(1, Math.rint(0.01 * rate)); // samples of one value of the envelope
        int held = 20; // values that still count as active after the envelope has fallen
        int count = (wav.length + size - 1) / size;
        double[] sums = new double[count + 1];
        double energy = 0;
        for (int i = 0; i < count; i++) {
            double sum = 0;
            for (int j = i * size; j < Math.min(wav.length, (i + 1) * size); j++) {
                sum += Math.abs(wav[j]);
                energy += (double) wav[j] * wav[j];
            }
            sums[i + 1] = sums[i] + sum / size;
        }
        energy /= size;
        double[] envelope = new double[count]; // smoothed over 50 ms
        double[] reached = new double[count];
        for (int i = 0; i < count; i++) {
            int first = Math.max(0, i - 2);
            int last = Math.min(count, i + 3);
            envelope[i] = (sums[last] - sums[first]) / (last - first);
            for (int j = Math.max(0, i - held); j <= i; j++) {
                reached[i] = Math.max(reached[i], envelope[j]);
            }
        }
        double floor = Math.pow(10, SILENCE / 20);
        double threshold = floor;
        for (int round = 0; round < 30; round++) {
            int active = 0;
            for (double value : reached) {
                active += value >= threshold ? 1 : 0;
            }
            double higher = Math.max(floor, Math.sqrt(energy / Math.max(1, active)) * Math.pow(10, -MARGIN / 20));
            if (higher == threshold) {
                break;
            }
            threshold = higher;
        }
        double sum = 0;
        long active = 0;
        for (int j = 0; j < wav.length; j++) {
            if (reached[j / size] >= threshold) {
                sum += (double) wav[j] * wav[j];
                active++;
            }
        }
        return sum / Math.max(1, active);
    }
}
