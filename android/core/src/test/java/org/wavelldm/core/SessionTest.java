package org.wavelldm.core;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.AfterClass;
import org.junit.BeforeClass;
import org.junit.Test;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

public class SessionTest {
    private static PipeGraph graph;

    @BeforeClass
    public static void start() throws IOException {
        graph = new PipeGraph("live");
    }

    @AfterClass
    public static void end() throws IOException {
        graph.close();
    }

    private static Session session(String[] line) {
        double[] levels = Arrays.stream(line[6].split(",")).mapToDouble(Double::parseDouble).toArray();
        float strength = Float.parseFloat(line[4]);
        return new Session(graph, Integer.parseInt(line[2]), levels, strength, Float.parseFloat(line[5]));
    }

    @Test
    public void itGivesWhatPythonGivesHoweverTheSoundIsCutAndIsNeverLaterThanItSays() throws Exception {
        int before = graph.calls;
        for (String[] line : Vectors.cases("session")) {
            int channels = Integer.parseInt(line[3]);
            float[][] wav = Vectors.read(line[1] + ".in", channels);
            Session session = session(line);
            assertEquals(line[1], Integer.parseInt(line[7]), session.latency());
            List<float[][]> made = new ArrayList<>();
            int[] cuts = Vectors.cuts(wav[0].length, 7);
            int count = 0;
            for (int i = 1; i < cuts.length; i++) {
                float[][] block = session.push(Vectors.part(wav, cuts[i - 1], cuts[i]));
                made.add(block);
                count += block[0].length;
                assertTrue(line[1] + " is late", cuts[i] - count <= session.latency());
            }
            made.add(session.finish());
            Vectors.assertClose(line[1], Vectors.read(line[1] + ".out", channels), Vectors.joined(made), 1e-5);
        }
        assertTrue("the graph ran", graph.calls > before + 500);
    }

    @Test
    public void emptySoundStaysEmpty() {
        Session session = new Session(graph, 48_000, 1, 0);
        assertEquals(0, session.push(new float[1][0])[0].length);
        assertEquals(0, session.finish()[0].length);
    }

    @Test
    public void strengthCanChangeWhileItRuns() {
        float[][] noise = new float[1][16_000];
        java.util.Random random = new java.util.Random(5);
        for (int i = 0; i < noise[0].length; i++) {
            noise[0][i] = 0.05f * (float) random.nextGaussian();
        }
        Session session = new Session(graph, 16_000, 1, 0);
        session.push(noise);
        double little = energy(session.push(noise)[0]);
        session.strength(0.1f);
        session.push(Vectors.part(noise, 0, 2000));
        double much = energy(session.push(noise)[0]);
        assertTrue("with less strength more noise stays: " + little + ", " + much, much > 10 * little);
    }

    private static double energy(float[] x) {
        double sum = 0;
        for (float v : x) {
            sum += v * v;
        }
        return sum;
    }

    @Test
    public void whatCannotBeCleanedIsRefusedWithASentence() {
        says("sample rate", () -> new Session(graph, 3_999, 1, 0));
        says("sample rate", () -> new Session(graph, 400_000, 1, 0));
        says("strength lies between", () -> new Session(graph, 16_000, 5, 0));
        says("strength lies between", () -> new Session(graph, 16_000, Float.NaN, 0));
        says("background between", () -> new Session(graph, 16_000, 1, 1.1f));
        says("one channel or more", () -> new Session(graph, 16_000, new double[0], 1, 0));
        Session session = new Session(graph, 16_000, 1, 0);
        says("blocks of 1 channels", () -> session.push(new float[2][10]));
        says("NaN or infinite", () -> session.push(new float[][] {{0, Float.NaN}}));
        says("NaN or infinite", () -> session.push(new float[][] {{Float.POSITIVE_INFINITY}}));
        Session two = new Session(graph, 16_000, new double[2], 1, 0);
        says("same length", () -> two.push(new float[][] {{0}, {0, 0}}));
        session.finish();
        says("finished", () -> session.push(new float[1][1]));
        says("finished already", session::finish);
    }

    @Test
    public void aFileThatIsNoGraphForStreamsIsRefusedWithASentence() {
        says("no graph of wavelldm", () -> Facts.parse(null));
        says("no graph of wavelldm", () -> Facts.parse("{\"made\": \"elsewhere\"}"));
        String facts = "{\"format\": 1, \"name\": \"x\", \"form\": \"stream\", \"sr\": 16000, \"hop\": 256, "
                + "\"ahead\": 1, \"latency\": 767}";
        assertEquals(767, Facts.parse(facts).latency);
        assertEquals(1, Facts.parse(facts).chunk);
        says("format 2", () -> Facts.parse(facts.replace("\"format\": 1", "\"format\": 2")));
        says("not for streams", () -> Facts.parse(facts.replace("\"stream\"", "\"recording\"")).of("stream"));
        says("name no hop", () -> Facts.parse(facts.replace("\"hop\"", "\"hip\"")));
    }

    private static void says(String part, org.junit.function.ThrowingRunnable what) {
        RuntimeException error = assertThrows(RuntimeException.class, what);
        assertTrue(error.getMessage(), error.getMessage().contains(part));
    }

    /** A recording in memory, read in blocks. */
    private static Recording.Source source(float[][] wav, int rate) {
        return new Recording.Source() {
            private int at;

            @Override
            public int rate() {
                return rate;
            }

            @Override
            public int channels() {
                return wav.length;
            }

            @Override
            public float[][] read() {
                if (at == wav[0].length) {
                    return null;
                }
                int from = at;
                at = Math.min(wav[0].length, at + 4000);
                return Vectors.part(wav, from, at);
            }

            @Override
            public void close() {}
        };
    }

    @Test
    public void aRecordingIsWrittenAsAWavFileOfTheSameLength() throws Exception {
        float[][] wav = Vectors.part(Vectors.read("disc.in", 2), 0, 44_100);
        ByteArrayOutputStream file = new ByteArrayOutputStream();
        List<Double> parts = new ArrayList<>();
        assertTrue(Recording.clean(graph, () -> source(wav, 44_100), new WavWriter(file), 1, 0, parts::add));
        ByteBuffer bytes = ByteBuffer.wrap(file.toByteArray()).order(ByteOrder.LITTLE_ENDIAN);
        assertEquals(44 + 2 * 2 * 44_100, bytes.limit());
        assertEquals(bytes.limit() - 8, bytes.getInt(4));
        assertEquals(2, bytes.getShort(22));
        assertEquals(44_100, bytes.getInt(24));
        assertEquals(bytes.limit() - 44, bytes.getInt(40));
        Levels levels = new Levels(44_100, 2);
        levels.push(wav);
        Session session = new Session(graph, 44_100, levels.finish(), 1, 0);
        float[][] wanted = Vectors.joined(List.of(session.push(wav), session.finish()));
        for (int i = 0; i < 44_100; i++) {
            for (int c = 0; c < 2; c++) {
                assertEquals(wanted[c][i], bytes.getShort(44 + 4 * i + 2 * c) / 32768f, 1.6e-5);
            }
        }
        for (int i = 1; i < parts.size(); i++) {
            assertTrue("progress goes on", parts.get(i) >= parts.get(i - 1));
        }
        assertEquals(1, parts.get(parts.size() - 1), 1e-9);
    }

    @Test
    public void aRecordingCanBeStoppedAndAnEmptyOneIsRefused() throws Exception {
        float[][] wav = new float[1][20_000];
        int[] calls = {0};
        Recording.Sink sink = new WavWriter(new ByteArrayOutputStream());
        assertFalse(Recording.clean(graph, () -> source(wav, 16_000), sink, 1, 0, part -> ++calls[0] < 8));
        assertEquals(8, calls[0]);
        IOException error = assertThrows(IOException.class,
                () -> Recording.clean(graph, () -> source(new float[1][0], 16_000), sink, 1, 0, part -> true));
        assertTrue(error.getMessage().contains("no samples"));
        IOException large = assertThrows(IOException.class,
                () -> new WavWriter(new ByteArrayOutputStream()).begin(48_000, 2, 1L << 31));
        assertTrue(large.getMessage().contains("too long"));
    }

    @Test
    public void aSampleBeyondFullScaleIsClippedNotWrapped() throws Exception {
        ByteArrayOutputStream file = new ByteArrayOutputStream();
        new WavWriter(file).write(new float[][] {{1.5f, -1.5f, 1f}});
        ByteBuffer bytes = ByteBuffer.wrap(file.toByteArray()).order(ByteOrder.LITTLE_ENDIAN);
        assertEquals(32767, bytes.getShort());
        assertEquals(-32768, bytes.getShort());
        assertEquals(32767, bytes.getShort());
    }
}
