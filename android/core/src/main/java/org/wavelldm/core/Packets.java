package org.wavelldm.core;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * Codes as bytes: two that say which codes these are, the number of codebooks, that of the first frame in four bytes,
 * and each frame's codes as the digits of one large number. Little-endian; as in wavelldm/light/packets.py.
 */
final class Packets {
    static final int HEAD = 7;

    private Packets() {}

    /** Bytes of so many codes. */
    static int size(int count, int entries) {
        double bits = count * Math.log(entries) / Math.log(2);
        if (bits > 63) {
            throw new IllegalArgumentException(count + " codes of " + entries + " entries are too many for a packet");
        }
        long most = 1; // the largest number, and one more
        for (int i = 0; i < count; i++) {
            most *= entries;
        }
        return (64 - Long.numberOfLeadingZeros(most - 1) + 7) / 8;
    }

    /** A packet of frames that were packed before. */
    static byte[] join(Facts facts, int codebooks, long first, Iterable<byte[]> frames) {
        int size = HEAD;
        for (byte[] frame : frames) {
            size += frame.length;
        }
        ByteBuffer packet = ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN);
        packet.put(facts.tag).put((byte) codebooks).putInt((int) first);
        for (byte[] frame : frames) {
            packet.put(frame);
        }
        return packet.array();
    }

    static byte[] pack(float[] codes, int count, int entries) {
        long number = 0;
        for (int i = count - 1; i >= 0; i--) {
            number = number * entries + (long) codes[i];
        }
        byte[] bytes = new byte[size(count, entries)];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = (byte) (number >>> 8 * i);
        }
        return bytes;
    }

    /** The inverse, from byte `at` on; null if the bytes hold anything else. */
    static float[] unpack(byte[] bytes, int at, int count, int entries) {
        long number = 0;
        for (int i = size(count, entries) - 1; i >= 0; i--) {
            number = number << 8 | bytes[at + i] & 0xff;
        }
        float[] codes = new float[count];
        for (int i = 0; i < count; i++) {
            codes[i] = Long.remainderUnsigned(number, entries);
            number = Long.divideUnsigned(number, entries);
        }
        return number == 0 ? codes : null;
    }
}
