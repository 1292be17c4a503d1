package org.wavelldm.core;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;

/** Writes sound as a WAV file of 16 bits. */
public final class WavWriter implements Recording.Sink {
    private static final long MOST = (1L << 32) - 1 - 36; // bytes that a header can count

    private final OutputStream out;

    public WavWriter(OutputStream out) {
        this.out = out;
    }

    @Override
    public void begin(int rate, int channels, long frames) throws IOException {
        long bytes = 2L * channels * frames;
        if (bytes > MOST) {
            throw new IOException("this recording is too long for one WAV file; cut it into parts");
        }
        ByteBuffer head = ByteBuffer.allocate(44).order(ByteOrder.LITTLE_ENDIAN);
        head.put("RIFF".getBytes(StandardCharsets.US_ASCII)).putInt((int) (36 + bytes));
        head.put("WAVEfmt ".getBytes(StandardCharsets.US_ASCII)).putInt(16);
        head.putShort((short) 1).putShort((short) channels).putInt(rate).putInt(2 * channels * rate);
        head.putShort((short) (2 * channels)).putShort((short) 16);
        head.put("data".getBytes(StandardCharsets.US_ASCII)).putInt((int) bytes);
        out.write(head.array());
    }

    @Override
    public void write(float[][] block) throws IOException {
        int count = block[0].length;
        ByteBuffer bytes = ByteBuffer.allocate(2 * block.length * count).order(ByteOrder.LITTLE_ENDIAN);
        for (int i = 0; i < count; i++) {
            for (float[] row : block) {
                bytes.putShort((short) Math.max(-32768, Math.min(32767, Math.round(row[i] * 32768f))));
            }
        }
        out.write(bytes.array());
    }
}
