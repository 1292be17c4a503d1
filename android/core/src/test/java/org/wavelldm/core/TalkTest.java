package org.wavelldm.core;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import org.junit.AfterClass;
import org.junit.BeforeClass;
import org.junit.Test;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

public class TalkTest {
    private static PipeGraph encoder;
    private static PipeGraph decoder;

    @BeforeClass
    public static void start() throws IOException {
        encoder = new PipeGraph("encoder");
        decoder = new PipeGraph("decoder");
    }

    @AfterClass
    public static void end() throws IOException {
        encoder.close();
        decoder.close();
    }

    /** The packets of a .wlp file. */
    private static List<byte[]> packets(String name) throws IOException {
        ByteBuffer all = ByteBuffer.wrap(Files.readAllBytes(Vectors.FOLDER.resolve(name + ".wlp")))
                .order(ByteOrder.LITTLE_ENDIAN);
        all.position(4);
        List<byte[]> found = new ArrayList<>();
        while (all.hasRemaining()) {
            byte[] packet = new byte[all.getShort()];
            all.get(packet);
            found.add(packet);
        }
        return found;
    }

    @Test
    public void packetsAreThoseThatPythonMakesHoweverTheSoundIsCut() throws Exception {
        for (String[] line : Vectors.cases("talk")) {
            float[] wav = Vectors.read(line[1] + ".in", 1)[0];
            Sender sender = new Sender(encoder, Integer.parseInt(line[2]), Integer.parseInt(line[3]));
            List<byte[]> made = new ArrayList<>();
            int[] cuts = Vectors.cuts(wav.length, 3);
            for (int i = 1; i < cuts.length; i++) {
                made.addAll(sender.push(Arrays.copyOfRange(wav, cuts[i - 1], cuts[i])));
            }
            made.addAll(sender.finish());
            List<byte[]> wanted = packets(line[1]);
            assertEquals(line[1], wanted.size(), made.size());
            for (int i = 0; i < made.size(); i++) {
                assertArrayEquals(line[1] + ", packet " + i, wanted.get(i), made.get(i));
            }
        }
    }

    @Test
    public void itSoundsAsInPythonWhateverIsLost() throws Exception {
        for (String[] line : Vectors.cases("talk")) {
            int repeat = Integer.parseInt(line[3]);
            List<byte[]> packets = packets(line[1]);
            Receiver receiver = new Receiver(decoder);
            receiver.begin();
            Samples heard = new Samples();
            for (int i = -repeat; i < packets.size(); i++) {
                int now = i + repeat;
                if (now < packets.size() && line[4].charAt(now) == '1') {
                    receiver.put(packets.get(now));
                }
                if (i >= 0) {
                    heard.add(receiver.take());
                }
            }
            heard.add(receiver.finish());
            assertEquals(line[1], Integer.parseInt(line[5]), receiver.lost());
            float[][] got = {heard.take(heard.size())};
            Vectors.assertClose(line[1], Vectors.read(line[1] + ".out", 1), got, 1e-5);
        }
    }

    @Test
    public void theOrderOfPacketsDoesNotMatter() throws Exception {
        List<byte[]> packets = packets("call");
        float[] inOrder = all(packets);
        Collections.shuffle(packets, new Random(4));
        packets.addAll(packets.subList(0, 20));
        assertArrayEquals(inOrder, all(packets), 0f);
    }

    private static float[] all(List<byte[]> packets) {
        Receiver receiver = new Receiver(decoder);
        receiver.begin();
        for (byte[] packet : packets) {
            receiver.put(packet);
        }
        Samples heard = new Samples();
        while (receiver.held() > 0) {
            heard.add(receiver.take());
        }
        assertEquals(0, receiver.lost());
        return heard.take(heard.size());
    }

    @Test
    public void framesAreCountedOnWhereTheirNumberBeginsAgain() throws Exception {
        List<byte[]> packets = packets("call").subList(0, 40);
        Receiver plain = new Receiver(decoder);
        Receiver wrapped = new Receiver(decoder);
        for (int i = 0; i < packets.size(); i++) {
            byte[] later = packets.get(i).clone(); // from 10 before the highest number on
            ByteBuffer.wrap(later).order(ByteOrder.LITTLE_ENDIAN).putInt(3, i - 10);
            plain.put(packets.get(i));
            wrapped.put(later);
            assertArrayEquals(plain.take(), wrapped.take(), 0f);
        }
        assertEquals(0, wrapped.lost());
        plain.put(packets.get(0)); // it was there already
        assertEquals(1, plain.late());
        byte[] far = packets.get(7).clone(); // a sender that started anew
        ByteBuffer.wrap(far).order(ByteOrder.LITTLE_ENDIAN).putInt(3, 90_000);
        plain.put(far);
        assertEquals(1, plain.held());
    }

    @Test
    public void packetsOfOthersAreRefusedWithASentence() throws Exception {
        byte[] good = packets("call").get(0);
        byte[] foreign = good.clone();
        foreign[0] ^= 1;
        byte[] damaged = good.clone();
        Arrays.fill(damaged, 7, damaged.length, (byte) 0xff);
        byte[] many = good.clone();
        many[2] = 5;
        byte[] none = good.clone();
        none[2] = 0;
        Receiver receiver = new Receiver(decoder);
        says("other weights", () -> receiver.put(foreign));
        for (byte[] packet : new byte[][] {damaged, many, none, Arrays.copyOf(good, good.length - 1)}) {
            says("damaged", () -> receiver.put(packet));
        }
        says("none of this codec", () -> receiver.put(new byte[7]));
        assertEquals(0, receiver.held());
        says("1 to 4 codebooks", () -> new Sender(encoder, 5, 0));
        says("repeats 0 to 9", () -> new Sender(encoder, 4, 10));
        says("no live encoder", () -> new Sender(decoder));
        says("no live decoder", () -> new Receiver(encoder));
        says("not for streams", () -> new Session(decoder, 16_000, 1, 0));
    }

    private static void says(String words, org.junit.function.ThrowingRunnable what) {
        String said = assertThrows(IllegalArgumentException.class, what).getMessage();
        assertTrue(said, said.contains(words));
    }

    @Test
    public void onesOwnVoiceIsInPhaseAtEveryRateAndNeverLaterThanItSays() throws Exception {
        float[] wanted = Vectors.read("call.out", 1)[0];
        for (int rate : new int[] {16_000, 48_000, 44_100}) {
            float[][] wav = resampled(Vectors.read("call.in", 1), 16_000, rate);
            Talk talk = new Talk(encoder, decoder, rate, () -> 0, new Random(1));
            Samples heard = new Samples();
            int[] cuts = Vectors.cuts(wav[0].length, 5);
            for (int i = 1; i < cuts.length; i++) {
                heard.add(talk.push(Vectors.part(wav, cuts[i - 1], cuts[i]))[0]);
                assertTrue(rate + " Hz is late", cuts[i] - heard.size() <= talk.latency());
            }
            assertTrue("it never hears ahead", heard.size() <= wav[0].length);
            float[] back = resampled(new float[][] {heard.take(heard.size())}, rate, 16_000)[0];
            if (rate == 16_000) {
                assertArrayEquals(Arrays.copyOf(wanted, back.length), back, 1e-5f);
            }
            // at other rates a code may fall on the other side of a boundary, and the phase differs from there on
            double apart = 0;
            double size = 0;
            for (int i = 0; i + 256 <= back.length; i += 256) {
                double had = Math.sqrt(power(Arrays.copyOfRange(wanted, i, i + 256)));
                apart += Math.pow(had - Math.sqrt(power(Arrays.copyOfRange(back, i, i + 256))), 2);
                size += had * had;
            }
            assertTrue(rate + " Hz: " + Math.sqrt(apart / size), Math.sqrt(apart / size) < 0.15);
        }
    }

    private static float[][] resampled(float[][] wav, int from, int to) {
        return new Resampler(from, to, 1).push(wav);
    }

    @Test
    public void aShareOfThePacketsIsLostAndLongGapsFadeAway() throws Exception {
        float[][] wav = Vectors.read("call.in", 1);
        int[] asked = {0};
        Talk talk = new Talk(encoder, decoder, 16_000, () -> asked[0]++ < 60 ? 0 : 0.3, new Random(2));
        float[] whole = talk.push(wav)[0];
        float[] wanted = Vectors.read("call.out", 1)[0];
        assertTrue("for each packet it is asked once", asked[0] == packets("call").size() - 1);
        assertArrayEquals(Arrays.copyOf(wanted, 59 * 256), Arrays.copyOf(whole, 59 * 256), 1e-5f);
        assertTrue(power(Arrays.copyOfRange(whole, 61 * 256, whole.length)) > 1e-5);
        assertTrue("the rest differs", whole[100 * 256] != wanted[100 * 256]);
        Receiver receiver = new Receiver(decoder);
        assertEquals(0, power(receiver.take()), 0);
        for (byte[] packet : packets("call").subList(0, 30)) {
            receiver.put(packet);
            receiver.take();
        }
        for (int i = 0; i < 13; i++) {
            double left = power(receiver.take());
            assertTrue("gap " + i, i < 6 ? left > 0 : i < 12 || left == 0);
        }
        assertEquals(13, receiver.lost());
    }

    private static double power(float[] x) {
        double sum = 0;
        for (float value : x) {
            sum += value * value;
        }
        return sum / x.length;
    }
}
