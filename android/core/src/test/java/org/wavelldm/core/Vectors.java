package org.wavelldm.core;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

/** The cases that vectors.py wrote, from the folder that the property wavelldm.vectors names. */
final class Vectors {
    static final Path FOLDER = Paths.get(System.getProperty("wavelldm.vectors"));

    private Vectors() {}

    static List<String[]> cases(String kind) throws IOException {
        List<String[]> found = new ArrayList<>();
        for (String line : Files.readAllLines(FOLDER.resolve("cases.txt"))) {
            if (line.startsWith(kind + "\t")) {
                found.add(line.split("\t"));
            }
        }
        assertTrue("no cases of " + kind, !found.isEmpty());
        return found;
    }

    static float[][] read(String name, int channels) throws IOException {
        FloatBuffer all = ByteBuffer.wrap(Files.readAllBytes(FOLDER.resolve(name)))
                .order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
        float[][] rows = new float[channels][all.remaining() / channels];
        for (float[] row : rows) {
            all.get(row);
        }
        return rows;
    }

    static float[][] part(float[][] rows, int from, int to) {
        float[][] out = new float[rows.length][];
        for (int c = 0; c < rows.length; c++) {
            out[c] = Arrays.copyOfRange(rows[c], from, to);
        }
        return out;
    }

    /** Places to cut `length` samples at, the same each time; some blocks are empty. */
    static int[] cuts(int length, long seed) {
        Random random = new Random(seed);
        List<Integer> places = new ArrayList<>();
        int at = 0;
        places.add(0);
        while (at < length) {
            at = Math.min(length, at + random.nextInt(random.nextInt(4) == 0 ? 9000 : 600));
            places.add(at);
        }
        return places.stream().mapToInt(x -> x).toArray();
    }

    static float[][] joined(List<float[][]> blocks) {
        float[][] out = new float[blocks.get(0).length][];
        for (int c = 0; c < out.length; c++) {
            int size = 0;
            for (float[][] block : blocks) {
                size += block[c].length;
            }
            out[c] = new float[size];
            int at = 0;
            for (float[][] block : blocks) {
                System.arraycopy(block[c], 0, out[c], at, block[c].length);
                at += block[c].length;
            }
        }
        return out;
    }

    static void assertClose(String what, float[][] wanted, float[][] got, double tolerance) {
        for (int c = 0; c < wanted.length; c++) {
            assertEquals(what + ": length", wanted[c].length, got[c].length);
            for (int i = 0; i < wanted[c].length; i++) {
                assertEquals(what + ": channel " + c + ", sample " + i, wanted[c][i], got[c][i], tolerance);
            }
        }
    }
}
