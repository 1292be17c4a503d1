package org.wavelldm.core;

import java.util.ArrayList;
import java.util.List;
import org.junit.Test;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

public class ResamplerTest {
    @Test
    public void itGivesWhatPythonGivesHoweverTheSoundIsCut() throws Exception {
        for (String[] line : Vectors.cases("resample")) {
            int from = Integer.parseInt(line[2]);
            int to = Integer.parseInt(line[3]);
            int channels = Integer.parseInt(line[4]);
            float[][] wav = Vectors.read(line[1] + ".in", channels);
            for (long seed = 1; seed <= 2; seed++) {
                Resampler stage = new Resampler(from, to, channels);
                assertEquals(line[1], Integer.parseInt(line[5]), stage.lookahead);
                List<float[][]> made = new ArrayList<>();
                int[] cuts = Vectors.cuts(wav[0].length, seed);
                int count = 0;
                for (int i = 1; i < cuts.length; i++) {
                    float[][] block = stage.push(Vectors.part(wav, cuts[i - 1], cuts[i]));
                    made.add(block);
                    count += block[0].length;
                    long due = (long) (cuts[i] - stage.lookahead) * to / from; // samples that are certain by now
                    assertTrue(line[1] + " is late", count >= due);
                }
                made.add(stage.finish());
                Vectors.assertClose(line[1], Vectors.read(line[1] + ".out", channels), Vectors.joined(made), 2e-6);
            }
        }
    }
}
