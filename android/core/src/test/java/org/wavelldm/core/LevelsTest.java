package org.wavelldm.core;

import java.util.Arrays;
import org.junit.Test;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;

public class LevelsTest {
    @Test
    public void theyAreThoseThatPythonMeasures() throws Exception {
        for (String[] line : Vectors.cases("level")) {
            int rate = Integer.parseInt(line[2]);
            float[][] wav = Vectors.read(line[1] + ".in", 2);
            float[] wanted = Vectors.read(line[1] + ".out", 1)[0]; // two levels, two powers
            Levels levels = new Levels(rate, 2);
            int[] cuts = Vectors.cuts(wav[0].length, 3);
            for (int i = 1; i < cuts.length; i++) {
                levels.push(Vectors.part(wav, cuts[i - 1], cuts[i]));
            }
            double[] got = levels.finish();
            for (int c = 0; c < 2; c++) {
                assertEquals(line[1], wanted[c], got[c], 1e-3);
                double power = Levels.activePower(Arrays.copyOf(wav[c], rate), rate);
                assertEquals(line[1], wanted[2 + c], power, 1e-4 * wanted[2 + c]);
            }
        }
    }

    @Test
    public void silenceAndNothingHaveTheUsualLevel() {
        Levels silent = new Levels(16_000, 1);
        silent.push(new float[1][20_000]);
        assertArrayEquals(new double[] {Levels.USUAL}, silent.finish(), 0);
        assertArrayEquals(new double[] {Levels.USUAL}, new Levels(16_000, 1).finish(), 0);
    }
}
