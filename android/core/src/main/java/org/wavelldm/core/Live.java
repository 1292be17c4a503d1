package org.wavelldm.core;

import java.util.concurrent.locks.LockSupport;
import java.util.function.Supplier;

/**
 * Sound from a microphone, cleaned, or changed otherwise, and played: one audio thread calls `process`, one worker runs
 * the graphs.
 *
 * <p>The audio thread plays every sample `delay` samples after it came, cleaned or not, so both are in phase. It takes
 * what the worker has cleaned; where that is missing, or not wanted, it plays the sample as it came, with a cross-fade.
 * It fades while it still has cleaned samples left, so nothing clicks. It never waits, locks or allocates.
 *
 * <p>A worker that falls behind by LIMIT gives up for some seconds, and begins afresh with what arrives then.
 */
public final class Live implements Runnable {
    static final double FADE = 0.01; // seconds of a cross-fade
    static final double MARGIN = 0.04; // seconds that the worker may be late
    static final double LIMIT = 0.5; // seconds behind, from which the worker gives up
    static final double WARM = 0.3; // seconds of a fresh session that are not played
    static final double REST = 2; // seconds without cleaning after that; twice as many each time it happens again
    static final double LONGEST_REST = 32;
    static final double CALM = 30; // seconds, after which it counts as the first time

    /** Samples between what comes and what is played. */
    public final int delay;

    private final Supplier<Voice> voices;
    private final int rate;
    private final int block;
    private final int fade;
    private final Ring in;
    private final Ring out;

    // of the audio thread
    private final float[] cleaned;
    private final float[] original;
    private float part; // of the cleaned sound in what is played

    // of the worker
    private final float[] taken;
    private Voice voice;
    private long next; // sample that it takes next
    private long restsUntil;
    private double rest = REST;
    private long gaveUp = Long.MIN_VALUE / 2;

    // between them
    private volatile boolean wanted = true;
    private volatile float strength = 1;
    private volatile long playFrom = Long.MAX_VALUE; // cleaned samples from this one on may be played
    private volatile boolean stopped;
    private volatile Thread worker;
    private volatile int missed;
    private volatile int overloads;
    private volatile String failure;
    private volatile float load;
    private volatile float inLevel;
    private volatile float outLevel;

    /** The microphone, cleaned. `block`: the most samples that are handled at a time. */
    public Live(Graph graph, int rate, int block) {
        this(() -> new Session(graph, rate, 1, 0), rate, block);
    }

    /** Another stream than the one that cleans: `voices` begins a new one of one channel. */
    public Live(Supplier<Voice> voices, int rate, int block) {
        this.voices = voices;
        this.rate = rate;
        this.block = block;
        voice = voices.get();
        fade = seconds(FADE);
        delay = voice.latency() + block + fade + seconds(MARGIN);
        in = new Ring(2 * seconds(LIMIT) + delay + 2 * block);
        out = new Ring(delay + 2 * block);
        cleaned = new float[block];
        original = new float[block];
        taken = new float[block];
        playFrom = 0;
    }

    private int seconds(double x) {
        return (int) Math.round(x * rate);
    }

    /** Whether the cleaned sound is played, or what came, as late. */
    public void clean(boolean wanted) {
        this.wanted = wanted;
    }

    /** How much is taken away, above 0 and up to 4. */
    public void strength(float strength) {
        this.strength = Math.min(4f, Math.max(0.05f, strength));
    }

    /** How late everything is played, without the buffers of the device. */
    public double seconds() {
        return (double) delay / rate;
    }

    /** Blocks that were played as they came because the worker was late. */
    public int missed() {
        return missed;
    }

    /** Times that the worker gave up. */
    public int overloads() {
        return overloads;
    }

    /** Whether the worker has given up, for now. */
    public boolean resting() {
        return playFrom == Long.MAX_VALUE;
    }

    /** Why the worker has ended, or null. */
    public String failure() {
        return failure;
    }

    /** Seconds of work for one second of sound. */
    public float load() {
        return load;
    }

    /** The peak of the last block that came. */
    public float inLevel() {
        return inLevel;
    }

    /** The peak of the last block that was played. */
    public float outLevel() {
        return outLevel;
    }

    /** The audio thread: `sound` holds what came, and then what is to be played. */
    public void process(float[] sound, int count) {
        if (count > block) {
            throw new IllegalArgumentException("this stream takes at most " + block + " samples at a time");
        }
        long first = in.end() - delay; // of what is played
        inLevel = peak(sound, count);
        in.write(sound, 0, count);
        in.read(first, original, count);
        long ready = out.end(); // read before playFrom, which the worker writes before it skips
        boolean allowed = wanted && first >= playFrom;
        boolean there = ready >= first + count + fade;
        if (allowed && !there) {
            missed++;
        }
        boolean up = allowed && there;
        // on the way down as many samples are there as the fade needs
        int usable = up ? count : Math.min(count, (int) Math.ceil(part * fade));
        if (usable > 0 && !out.read(first, cleaned, usable)) {
            usable = 0;
        }
        float step = 1f / fade;
        for (int i = 0; i < count; i++) {
            part = up && i < usable ? Math.min(1, part + step) : Math.max(0, part - step);
            sound[i] = i < usable ? original[i] + part * (cleaned[i] - original[i]) : original[i];
        }
        outLevel = peak(sound, count);
        Thread waiting = worker;
        if (waiting != null) {
            LockSupport.unpark(waiting);
        }
    }

    private static float peak(float[] x, int count) {
        float most = 0;
        for (int i = 0; i < count; i++) {
            most = Math.max(most, Math.abs(x[i]));
        }
        return most;
    }

    /** The worker, until `stop`. */
    @Override
    public void run() {
        worker = Thread.currentThread();
        try {
            while (!stopped) {
                if (!work()) {
                    LockSupport.parkNanos(20_000_000);
                }
            }
        } catch (RuntimeException error) { // the audio thread plays on, without it
            failure = String.valueOf(error.getMessage());
        }
    }

    public void stop() {
        stopped = true;
        Thread waiting = worker;
        if (waiting != null) {
            LockSupport.unpark(waiting);
        }
    }

    /** One step of the worker; false, if there is nothing to do. */
    boolean work() {
        long end = in.end();
        if (resting()) {
            if (end < restsUntil) {
                return false;
            }
            begin(end);
        }
        int count = (int) Math.min(block, end - next);
        if (end - next > seconds(LIMIT) || !in.read(next, taken, count)) {
            giveUp(end);
            return false;
        }
        if (count == 0) {
            return false;
        }
        long before = System.nanoTime();
        voice.strength(strength);
        float[][] answer = voice.push(new float[][] {java.util.Arrays.copyOf(taken, count)});
        out.write(answer[0], 0, answer[0].length);
        next += count;
        float now = (System.nanoTime() - before) * 1e-9f * rate / count;
        load += 0.05f * (now - load);
        return true;
    }

    private void giveUp(long end) {
        playFrom = Long.MAX_VALUE;
        overloads++;
        rest = end - gaveUp < seconds(CALM + rest) ? Math.min(LONGEST_REST, 2 * rest) : REST;
        gaveUp = end;
        restsUntil = end + seconds(rest);
    }

    private void begin(long end) {
        voice = voices.get();
        next = end;
        long from = end + seconds(WARM);
        // the order matters: nothing before `from` may be played once the ring has moved on
        out.skip(end);
        playFrom = from;
    }
}
