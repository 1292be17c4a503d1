package org.wavelldm.core;

import java.io.Closeable;
import java.io.IOException;

/** A recording on disk, cleaned block by block in constant memory: one pass for its level, one to clean it. */
public final class Recording {
    /** Sound that is read block by block. */
    public interface Source extends Closeable {
        int rate();

        int channels();

        /** The next block (channels, any), or null at the end. */
        float[][] read() throws IOException;
    }

    /** Opens the recording; called twice. */
    public interface Opener {
        Source open() throws IOException;
    }

    /** Takes what was cleaned. */
    public interface Sink {
        void begin(int rate, int channels, long frames) throws IOException;

        void write(float[][] block) throws IOException;
    }

    /** Is told how much is done, 0 to 1, and says whether to go on. */
    public interface Watch {
        boolean on(double part);
    }

    private static final double FIRST = 0.15; // the part of the work that the first pass is

    private Recording() {}

    /** True when the whole recording was written, false when `watch` stopped it. */
    public static boolean clean(Graph graph, Opener opener, Sink sink, float strength, float background, Watch watch)
            throws IOException {
        long frames = 0;
        double[] levels;
        try (Source source = opener.open()) {
            Levels meter = new Levels(source.rate(), source.channels());
            for (float[][] block = source.read(); block != null; block = source.read()) {
                meter.push(block);
                frames += block[0].length;
                if (!watch.on(FIRST * frames / (frames + 60.0 * source.rate()))) { // the end is not known yet
                    return false;
                }
            }
            levels = meter.finish();
        }
        if (frames == 0) {
            throw new IOException("this recording holds no samples; choose another one");
        }
        try (Source source = opener.open()) {
            Session session = new Session(graph, source.rate(), levels, strength, background);
            sink.begin(source.rate(), source.channels(), frames);
            long done = 0;
            for (float[][] block = source.read(); block != null && done < frames; block = source.read()) {
                sink.write(session.push(block));
                done += block[0].length;
                if (!watch.on(FIRST + (1 - FIRST) * done / frames)) {
                    return false;
                }
            }
            if (done != frames) {
                throw new IOException("the recording changed while it was read; try again");
            }
            sink.write(session.finish());
        }
        return true;
    }
}
