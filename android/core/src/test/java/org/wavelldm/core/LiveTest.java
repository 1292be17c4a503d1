package org.wavelldm.core;

import com.sun.management.ThreadMXBean;
import java.lang.management.ManagementFactory;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import org.junit.Test;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertTrue;

public class LiveTest {
    private static final int RATE = 16_000;
    private static final int BLOCK = 160;

    /** A graph that takes everything away: what is heard is what was not cleaned. */
    private static final class Mute implements Graph {
        volatile int sleep; // milliseconds of one call
        volatile boolean fails;

        @Override
        public Facts facts() {
            return Facts.parse("{\"format\": 1, \"name\": \"mute\", \"form\": \"stream\", \"sr\": 16000, \"hop\": 256, "
                    + "\"ahead\": 1, \"latency\": 767}");
        }

        @Override
        public Map<String, int[]> inputs() {
            Map<String, int[]> shapes = new LinkedHashMap<>();
            shapes.put("sound", new int[] {1, 256});
            shapes.put("inside", new int[] {1});
            shapes.put("strength", new int[] {1});
            shapes.put("past", new int[] {1, 256});
            return shapes;
        }

        @Override
        public Map<String, int[]> outputs() {
            Map<String, int[]> shapes = new LinkedHashMap<>();
            shapes.put("cleaned", new int[] {1, 256});
            shapes.put("top", new int[] {1});
            shapes.put("past_out", new int[] {1, 256});
            return shapes;
        }

        @Override
        public void run(Map<String, float[]> inputs, Map<String, float[]> outputs) {
            if (fails) {
                throw new IllegalStateException("the graph fails");
            }
            if (sleep > 0) {
                try {
                    Thread.sleep(sleep);
                } catch (InterruptedException error) {
                    Thread.currentThread().interrupt();
                }
            }
        }
    }

    private static float tone(long i) {
        return i < 0 ? 0 : 0.5f * (float) Math.sin(2 * Math.PI * 100 * i / RATE);
    }

    private static final float STEP = 0.5f * (float) (2 * Math.PI * 100 / RATE); // the largest of the tone itself

    /** What a stream plays, with a tone at its input. */
    private static final class Player {
        final Live live;
        final float[] block = new float[BLOCK];
        long at; // samples so far
        float last;
        float jump; // the largest step between two samples

        Player(Live live) {
            this.live = live;
        }

        void block() {
            for (int i = 0; i < BLOCK; i++) {
                block[i] = tone(at + i);
            }
            live.process(block, BLOCK);
            at += BLOCK;
            for (float x : block) {
                jump = Math.max(jump, Math.abs(x - last));
                last = x;
            }
        }

        /** Seconds, with a worker that keeps up if `works`. */
        void play(double seconds, boolean works) {
            for (int n = (int) (seconds * RATE / BLOCK); n > 0; n--) {
                block();
                while (works && live.work()) {
                    // until there is nothing to do
                }
            }
        }

        /** The last block is what came, as late as the stream says. */
        void assertAsItCame() {
            for (int i = 0; i < BLOCK; i++) {
                assertEquals(tone(at - BLOCK + i - live.delay), block[i], 0);
            }
        }

        void assertCleaned() {
            for (float x : block) {
                assertEquals(0, x, 1e-7);
            }
        }

        void assertNoClick() {
            float most = STEP + 0.5f / (float) (Live.FADE * RATE) + 1e-4f;
            assertTrue("a step of " + jump + ", at most " + most, jump <= most);
        }
    }

    @Test
    public void bypassIsInPhaseAndFadesBothWays() {
        Player player = new Player(new Live(new Mute(), RATE, BLOCK));
        player.play(0.5, true);
        player.assertCleaned();
        player.live.clean(false);
        player.play(0.1, true);
        player.assertAsItCame();
        player.live.clean(true);
        player.play(0.1, true);
        player.assertCleaned();
        player.assertNoClick();
        assertEquals(0, player.live.missed());
        assertEquals(0, player.live.overloads());
    }

    @Test
    public void theCleanedSoundIsWhatASessionGives() throws Exception {
        float[] wav = Vectors.read("phone.in", 1)[0];
        float[] wanted = Vectors.read("phone.out", 1)[0];
        try (PipeGraph graph = new PipeGraph("live")) {
            Live live = new Live(graph, 48_000, 480);
            int first = (int) (Live.FADE * 48_000); // it fades in
            for (int at = 0; at + 480 <= wav.length; at += 480) {
                float[] block = Arrays.copyOfRange(wav, at, at + 480);
                live.process(block, 480);
                while (live.work()) {
                    // until there is nothing to do
                }
                for (int i = 0; i < 480; i++) {
                    int number = at + i - live.delay;
                    if (number < 0) {
                        assertEquals(0, block[i], 0);
                    } else if (number >= first + 480) {
                        assertEquals("sample " + number, wanted[number], block[i], 1e-5);
                    }
                }
            }
            assertEquals(0, live.missed());
        }
    }

    @Test
    public void aShortStallIsPlayedAsItCameAndThenCleanedAgain() {
        Player player = new Player(new Live(new Mute(), RATE, BLOCK));
        player.play(0.5, true);
        player.play(0.2, false);
        player.assertAsItCame();
        assertTrue(player.live.missed() > 0);
        player.play(0.1, true);
        player.assertCleaned();
        player.assertNoClick();
        assertEquals(0, player.live.overloads());
    }

    @Test
    public void aWorkerThatFallsBehindRestsAndComesBackWithoutAClick() {
        Player player = new Player(new Live(new Mute(), RATE, BLOCK));
        player.play(0.5, true);
        player.play(0.7, false);
        player.play(0.05, true);
        assertEquals(1, player.live.overloads());
        assertTrue(player.live.resting());
        player.play(Live.REST - 0.2, true);
        player.assertAsItCame();
        assertTrue(player.live.resting());
        player.play(0.25, true);
        assertFalse(player.live.resting());
        player.play(0.15, true);
        player.assertAsItCame(); // a fresh session is not played at once
        player.play(Live.WARM, true);
        player.assertCleaned();
        player.assertNoClick();
        player.play(0.7, false); // again so soon: it rests twice as long
        player.play(Live.REST + 1, true);
        assertEquals(2, player.live.overloads());
        player.assertAsItCame();
        player.play(Live.REST, true);
        player.assertCleaned();
        player.assertNoClick();
    }

    @Test
    public void aThreadThatIsTooSlowGivesUpAndOneThatIsFastEnoughDoesNot() throws Exception {
        for (int sleep : new int[] {0, 60}) {
            Mute graph = new Mute();
            graph.sleep = sleep;
            Player player = new Player(new Live(graph, RATE, BLOCK));
            Thread worker = new Thread(player.live);
            worker.start();
            long start = System.nanoTime();
            while (player.at < 2 * RATE) { // at the pace of a sound card
                player.block();
                long early = player.at * 1000 / RATE - (System.nanoTime() - start) / 1_000_000;
                Thread.sleep(Math.max(0, early));
                start += early < -30 ? -early * 1_000_000 : 0; // this thread was stopped: a sound card makes no haste
            }
            player.live.stop();
            worker.join(2000);
            assertFalse(worker.isAlive());
            player.assertNoClick();
            if (sleep == 0) {
                assertEquals(0, player.live.overloads());
                // on a machine that has other things to do some blocks come late
                assertTrue(player.live.missed() + " of 200 blocks as they came", player.live.missed() < 150);
            } else {
                assertTrue(player.live.overloads() >= 1);
                player.assertAsItCame();
                assertTrue("a load of " + player.live.load(), player.live.load() > 1);
            }
        }
    }

    @Test
    public void aGraphThatFailsIsReportedAndTheSoundGoesOn() throws Exception {
        Mute graph = new Mute();
        Player player = new Player(new Live(graph, RATE, BLOCK));
        player.play(0.3, true);
        graph.fails = true;
        Thread worker = new Thread(player.live);
        worker.start();
        player.play(0.3, false);
        worker.join(2000);
        assertFalse(worker.isAlive());
        assertEquals("the graph fails", player.live.failure());
        player.assertAsItCame();
        player.assertNoClick();
    }

    @Test
    public void theAudioThreadAllocatesNothing() {
        ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
        Live live = new Live(new Mute(), 48_000, 480);
        float[] block = new float[480];
        long id = Thread.currentThread().getId();
        for (int i = 0; i < 2000; i++) {
            live.process(block, 480);
        }
        long before = threads.getThreadAllocatedBytes(id);
        for (int i = 0; i < 1000; i++) {
            live.process(block, 480);
        }
        long bytes = threads.getThreadAllocatedBytes(id) - before;
        assertTrue(bytes + " bytes in 1000 blocks", bytes < 1000); // the measurement itself takes some
    }

    @Test
    public void aRingGivesEachSampleToAnotherThreadOnceItIsThere() throws Exception {
        Ring ring = new Ring(1000);
        int count = 100_000;
        Thread writer = new Thread(() -> {
            float[] block = new float[37];
            for (int at = 0; at < count; at += 37) {
                for (int i = 0; i < 37; i++) {
                    block[i] = at + i;
                }
                ring.write(block, 0, 37);
            }
        });
        writer.start();
        float[] got = new float[50];
        long late = 0;
        long next = 0;
        while (next + 50 < count) {
            if (ring.read(next, got, 50)) {
                for (int i = 0; i < 50; i++) {
                    assertEquals(next + i, got[i], 0);
                }
                next += 50;
            } else if (ring.end() - next > 500) { // too late: some were overwritten
                late++;
                next = ring.end() - 100;
            }
        }
        writer.join();
        assertFalse(ring.read(ring.end() - 10, got, 11));
        assertFalse(ring.read(ring.end() - ring.capacity() - 1, got, 10));
        assertTrue(ring.read(ring.end() - ring.capacity(), got, 10));
        assertTrue(new Ring(5).read(-3, got, 3) && got[0] == 0 && late >= 0);
    }
}
