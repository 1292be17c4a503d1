package org.wavelldm.core;

import java.util.Arrays;

/**
 * One recording being cleaned as it arrives: push blocks (channels, any), then finish. What comes out, joined, is as
 * long as what went in. It does what light/denoiser.py does:
 *
 * <pre>sound -> resample to the graph's rate -> graph, hop by hop -> resample back -> mix</pre>
 */
public final class Session implements Voice {
    public static final int SLOWEST = 4_000;
    public static final int FASTEST = 384_000; // Hz

    private final int rate;
    private final int lowRate;
    private final int channels;
    private final int latency;
    private final float background;
    private final StreamStage[] stages;
    private final float[] gain;
    private final Resampler down;
    private final Resampler up;
    private final Samples[] original;
    private final Samples[] low;
    private long received;
    private boolean finished;

    /** A stream of one channel whose level is not known. */
    public Session(Graph graph, int rate, float strength, float background) {
        this(graph, rate, new double[] {Levels.USUAL}, strength, background);
    }

    /**
     * `levels`: of the speech in each channel, in dB. `strength`, 0 to 4: how much is taken away. `background`, 0 to 1:
     * the part of what would be taken away that stays.
     */
    public Session(Graph graph, int rate, double[] levels, float strength, float background) {
        if (rate < SLOWEST || rate > FASTEST) {
            throw new IllegalArgumentException("the sample rate is " + rate + " Hz; rates from " + SLOWEST + " to "
                    + FASTEST + " Hz can be used");
        }
        if (!(strength >= 0 && strength <= 4 && background >= 0 && background <= 1)) {
            throw new IllegalArgumentException(
                    "strength lies between 0 and 4, and the kept background between 0 and 1");
        }
        if (levels.length == 0) {
            throw new IllegalArgumentException("a stream has one channel or more, and one level for each");
        }
        Facts facts = graph.facts().of("stream");
        this.rate = rate;
        this.background = background;
        lowRate = facts.rate;
        channels = levels.length;
        stages = new StreamStage[strength > 0 ? channels : 0];
        gain = new float[channels];
        original = new Samples[channels];
        low = new Samples[channels];
        for (int c = 0; c < channels; c++) {
            gain[c] = (float) Math.pow(10, (Levels.USUAL - levels[c]) / 20);
            original[c] = new Samples();
            low[c] = new Samples();
        }
        for (int c = 0; c < stages.length; c++) {
            stages[c] = new StreamStage(graph, strength);
        }
        down = new Resampler(rate, lowRate, channels);
        up = new Resampler(lowRate, rate, 3 * channels);
        latency = down.late(facts.latency, up);
    }

    @Override
    public int latency() {
        return latency;
    }

    /** Another strength, above 0, from the next frame on. */
    @Override
    public void strength(float strength) {
        for (StreamStage stage : stages) {
            stage.strength(strength);
        }
    }

    @Override
    public float[][] push(float[][] block) {
        if (finished) {
            throw new IllegalStateException("this session is finished; begin another one for another recording");
        }
        if (block.length != channels) {
            throw new IllegalArgumentException(
                    "this session takes blocks of " + channels + " channels, not " + block.length);
        }
        for (float[] row : block) {
            if (row.length != block[0].length) {
                throw new IllegalArgumentException("all channels of a block have the same length; cut them alike");
            }
            for (float x : row) {
                if (Float.isNaN(x) || Float.isInfinite(x)) {
                    throw new IllegalArgumentException("the recording holds NaN or infinite samples; repair it first");
                }
            }
        }
        return through(block, false);
    }

    public float[][] finish() {
        if (finished) {
            throw new IllegalStateException("this session is finished already");
        }
        finished = true;
        return through(new float[channels][0], true);
    }

    private float[][] through(float[][] block, boolean last) {
        received += block[0].length;
        if (stages.length == 0 || received == 0) {
            return block;
        }
        float[][] levelled = new float[channels][block[0].length];
        for (int c = 0; c < channels; c++) {
            original[c].add(block[c]);
            for (int i = 0; i < block[c].length; i++) {
                levelled[c][i] = gain[c] * block[c][i];
            }
        }
        float[][] lows = through(down, levelled, last);
        float[][] rows = new float[3 * channels][]; // changes, gains above the band less one, and what went in
        for (int c = 0; c < channels; c++) {
            low[c].add(lows[c]);
            float[][] tracks = stages[c].push(lows[c], last);
            float[] cleaned = tracks[0];
            float[] above = tracks[1];
            float[] before = low[c].take(cleaned.length);
            for (int i = 0; i < cleaned.length; i++) {
                cleaned[i] = (1 - background) * (cleaned[i] - before[i]); // the change
                above[i] = rate < lowRate ? -1 : (1 - background) * (above[i] - 1);
            }
            rows[c] = cleaned;
            rows[channels + c] = above;
            rows[2 * channels + c] = before;
        }
        if (rate != lowRate) {
            rows = through(up, rows, last);
        }
        float[][] out = new float[channels][];
        int count = Math.min(rows[0].length, original[0].size());
        for (int c = 0; c < channels; c++) {
            out[c] = original[c].take(count);
            float[] change = rows[c];
            float[] above = rows[channels + c];
            float[] before = rows[2 * channels + c];
            for (int i = 0; i < count; i++) {
                float top = rate == lowRate ? 0 : Math.min(0, Math.max(-1, above[i])); // nothing lies above
                out[c][i] += (change[i] + top * (gain[c] * out[c][i] - before[i])) / gain[c];
            }
        }
        return out;
    }

    private static float[][] through(Resampler stage, float[][] block, boolean last) {
        float[][] out = stage.push(block);
        if (!last) {
            return out;
        }
        float[][] rest = stage.finish();
        float[][] joined = new float[out.length][];
        for (int c = 0; c < out.length; c++) {
            joined[c] = Arrays.copyOf(out[c], out[c].length + rest[c].length);
            System.arraycopy(rest[c], 0, joined[c], out[c].length, rest[c].length);
        }
        return joined;
    }
}
