package org.wavelldm.app;

import android.content.Context;
import android.media.AudioFormat;
import android.media.MediaCodec;
import android.media.MediaExtractor;
import android.media.MediaFormat;
import android.net.Uri;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.wavelldm.core.Recording;

/** The sound of any file that the phone can play, decoded block by block. */
final class MediaSource implements Recording.Source {
    private static final long PATIENCE = 10_000; // microseconds
    private static final int MOST_WAITS = 1_000; // of a decoder that gives nothing: 10 s

    private final MediaExtractor extractor = new MediaExtractor();
    private MediaCodec decoder;
    private final MediaCodec.BufferInfo info = new MediaCodec.BufferInfo();
    private boolean fed; // all of the file went in
    private boolean done;
    private int rate;
    private int channels;
    private boolean floats;
    private float[][] first;

    MediaSource(Context context, Uri uri) throws IOException {
        try {
            extractor.setDataSource(context, uri, null);
            MediaFormat format = null;
            for (int i = 0; i < extractor.getTrackCount() && format == null; i++) {
                MediaFormat track = extractor.getTrackFormat(i);
                if (track.getString(MediaFormat.KEY_MIME).startsWith("audio/")) {
                    extractor.selectTrack(i);
                    format = track;
                }
            }
            if (format == null) {
                throw new IOException("this file holds no sound; choose another one");
            }
            decoder = MediaCodec.createDecoderByType(format.getString(MediaFormat.KEY_MIME));
            decoder.configure(format, null, null, 0);
            decoder.start();
            follow(format);
            first = next(); // only then rate and channels are certain
        } catch (IOException | RuntimeException error) {
            close();
            throw error instanceof IOException && error.getMessage() != null && error.getMessage().contains("no sound")
                    ? (IOException) error
                    : new IOException("this file cannot be read as sound; choose another one", error);
        }
    }

    private void follow(MediaFormat format) throws IOException {
        int newRate = format.getInteger(MediaFormat.KEY_SAMPLE_RATE);
        int newChannels = format.getInteger(MediaFormat.KEY_CHANNEL_COUNT);
        if (first != null && (newRate != rate || newChannels != channels)) {
            throw new IOException("this file changes its sample rate on the way; convert it to WAV first");
        }
        rate = newRate;
        channels = newChannels;
        floats = format.containsKey(MediaFormat.KEY_PCM_ENCODING)
                && format.getInteger(MediaFormat.KEY_PCM_ENCODING) == AudioFormat.ENCODING_PCM_FLOAT;
    }

    @Override
    public int rate() {
        return rate;
    }

    @Override
    public int channels() {
        return channels;
    }

    @Override
    public float[][] read() throws IOException {
        float[][] block = first;
        if (block != null && block.length > 0) {
            first = new float[0][]; // given
            return block;
        }
        try {
            return next();
        } catch (RuntimeException error) {
            throw new IOException("this file is damaged and cannot be read to its end", error);
        }
    }

    /** The next block (channels, n), or null at the end. */
    private float[][] next() throws IOException {
        for (int waits = 0; !done && waits < MOST_WAITS; waits++) {
            feed();
            int index = decoder.dequeueOutputBuffer(info, PATIENCE);
            if (index == MediaCodec.INFO_OUTPUT_FORMAT_CHANGED) {
                follow(decoder.getOutputFormat());
            } else if (index >= 0) {
                done = (info.flags & MediaCodec.BUFFER_FLAG_END_OF_STREAM) != 0;
                ByteBuffer bytes = decoder.getOutputBuffer(index);
                bytes.position(info.offset);
                bytes.limit(info.offset + info.size);
                float[][] block = samples(bytes.order(ByteOrder.nativeOrder()));
                decoder.releaseOutputBuffer(index, false);
                if (block[0].length > 0) {
                    return block;
                }
            }
        }
        if (!done) {
            throw new IOException("this file cannot be decoded; convert it to WAV first");
        }
        return null;
    }

    private void feed() {
        int index = fed ? -1 : decoder.dequeueInputBuffer(0);
        if (index < 0) {
            return;
        }
        int size = extractor.readSampleData(decoder.getInputBuffer(index), 0);
        if (size < 0) {
            fed = true;
            decoder.queueInputBuffer(index, 0, 0, 0, MediaCodec.BUFFER_FLAG_END_OF_STREAM);
        } else {
            decoder.queueInputBuffer(index, 0, size, extractor.getSampleTime(), 0);
            extractor.advance();
        }
    }

    private float[][] samples(ByteBuffer bytes) {
        int count = bytes.remaining() / (floats ? 4 : 2) / channels;
        float[][] block = new float[channels][count];
        for (int i = 0; i < count; i++) {
            for (float[] row : block) {
                row[i] = floats ? bytes.getFloat() : bytes.getShort() / 32768f;
            }
        }
        return block;
    }

    @Override
    public void close() {
        if (decoder != null) {
            decoder.release();
        }
        extractor.release();
    }
}
