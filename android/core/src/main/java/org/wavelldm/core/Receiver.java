package org.wavelldm.core;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.TreeMap;

/**
 * Packets in any order, some of them missing or twice -> sound, a frame at a time. `put` each packet when it arrives.
 * `take` the next frame when it is time to play it: if it is not there by then it is lost, and the decoder goes on by
 * itself. To wait for late packets, begin to take when `held` is as large as wanted. `graph` is
 * voice16k-live-decoder.onnx.
 */
public final class Receiver {
    private static final int FADE = 6; // frames lost in a row, after which the sound begins to fade
    private static final int GONE = 12; // and after which it is gone
    private static final long FAR = 500; // what is further from its place comes from a sender that started anew
    private static final long WRAP = 1L << 32; // frames are counted up to here

    private final Facts facts;
    private final States states;
    private final TreeMap<Long, float[]> frames = new TreeMap<>();
    private long next = -1; // number of the frame to be taken; -1 before any packet
    private boolean begun;
    private int gap; // frames lost in a row by now
    private int lost;
    private int late;

    public Receiver(Graph graph) {
        facts = graph.facts().of("live decoder");
        states = new States(graph);
    }

    /** Frames that were not there when they were taken. */
    public int lost() {
        return lost;
    }

    /** Packets that came after their frames were taken. */
    public int late() {
        return late;
    }

    /** Frames from the next one to the last one that is there. */
    public int held() {
        return frames.isEmpty() ? 0 : (int) (frames.lastKey() - next + 1);
    }

    /** Begin with frame 0, even if its packet is lost. */
    public void begin() {
        next = 0;
    }

    /** Throws IllegalArgumentException, with a sentence, where the packet is damaged or of another codec. */
    public void put(byte[] packet) {
        if (packet.length <= Packets.HEAD) {
            throw new IllegalArgumentException("a packet of " + packet.length + " bytes is none of this codec");
        }
        if (!Arrays.equals(Arrays.copyOf(packet, facts.tag.length), facts.tag)) {
            throw new IllegalArgumentException("the packet was made with other weights; use the same on both sides");
        }
        int codebooks = packet[2];
        boolean known = codebooks >= 1 && codebooks <= facts.codebooks;
        int size = known ? Packets.size(codebooks, facts.entries) : 1;
        float[][] rows = new float[(packet.length - Packets.HEAD) / size][];
        known &= rows.length * size == packet.length - Packets.HEAD;
        for (int i = 0; known && i < rows.length; i++) {
            rows[i] = Packets.unpack(packet, Packets.HEAD + i * size, codebooks, facts.entries);
            known = rows[i] != null;
        }
        if (!known) {
            throw new IllegalArgumentException("a packet is damaged; drop it, the decoder goes on without");
        }
        long number = ByteBuffer.wrap(packet).order(ByteOrder.LITTLE_ENDIAN).getInt(3) & 0xffffffffL;
        if (next < 0) {
            next = number;
        }
        number = next + Math.floorMod(number - next + WRAP / 2, WRAP) - WRAP / 2; // counted on where the count wrapped
        if (Math.abs(number - next) > FAR + frames.size()) {
            frames.clear();
            next = number = Math.floorMod(number, WRAP);
        }
        late += number + rows.length <= next ? 1 : 0;
        for (int i = 0; i < rows.length; i++) {
            if (number + i >= next) {
                frames.put(number + i, rows[i]);
            }
        }
    }

    /** The next frame's sound: `hop` samples, fewer for the first one. Before any packet silence. */
    public float[] take() {
        if (next < 0) {
            return new float[facts.hop];
        }
        float[] row = frames.remove(next);
        next++;
        gap = row == null ? gap + 1 : 0;
        lost += row == null ? 1 : 0;
        float[] codes = states.inputs.get("codes");
        for (int i = 0; i < codes.length; i++) {
            codes[i] = row != null && i < row.length ? row[i] : -1; // not there
        }
        states.run();
        float[] wav = states.outputs.get("wav");
        wav = Arrays.copyOfRange(wav, begun ? 0 : wav.length / 2, wav.length); // half a hop lies before the sound
        begun = true;
        float from = faded(gap - 1);
        float step = (faded(gap) - from) / (wav.length - 1);
        for (int i = 0; i < wav.length; i++) {
            wav[i] *= from + step * i;
        }
        return wav;
    }

    /** What the decoder still holds back, once, at the end: the half hop that only the last frame reaches. */
    public float[] finish() {
        float[] rest = new float[begun ? facts.hop / 2 : 0];
        for (int i = 0; i < rest.length; i++) {
            double fall = Math.cos(Math.PI / 2 * i / facts.hop); // of the decoder's window
            rest[i] = (float) (states.inputs.get("tail")[i] / Math.max(1e-2, fall * fall));
        }
        return rest;
    }

    /** The gain after so many frames lost in a row. */
    private static float faded(int gap) {
        return Math.min(1, Math.max(0, (float) (GONE - gap) / (GONE - FADE)));
    }
}
