package org.wavelldm.core;

/** One channel through a graph, hop by hop, as the sound arrives. */
final class StreamStage {
    private final Facts facts;
    private final States states;
    private final int side; // samples that a frame sees on either side of its own hop
    private final Samples held = new Samples();
    private final Samples sound = new Samples();
    private final Samples gains = new Samples();
    private final float[] ramp;
    private long received;
    private long frames;
    private long made; // the first frame reaches back beyond the beginning
    private float top = Float.NaN; // of the last frame

    StreamStage(Graph graph, float strength) {
        facts = graph.facts();
        states = new States(graph);
        strength(strength);
        side = facts.hop / 2;
        made = -side;
        held.zeros(side);
        ramp = new float[facts.hop];
    }

    void strength(float strength) {
        states.inputs.get("strength")[0] = strength;
    }

    /** What is certain now: (2, m), the sound, and the gain of what lies above the network's band. */
    float[][] push(float[] wav, boolean last) {
        received += wav.length;
        held.add(wav);
        answer(last);
        int skipped = (int) Math.min(Math.max(0, -made), sound.size());
        made += sound.size();
        sound.drop(skipped);
        gains.drop(skipped);
        if (last) {
            int length = (int) Math.max(0, received - made + sound.size());
            sound.cut(length);
            gains.cut(length);
        }
        return new float[][] {sound.take(sound.size()), gains.take(gains.size())};
    }

    private void answer(boolean last) {
        int hop = facts.hop;
        int size = hop * facts.chunk;
        long end = Long.MAX_VALUE;
        if (last) {
            end = -Math.floorDiv(-received, (long) hop); // the frame that begins behind the sound
            long left = -Math.floorDiv(-(received + side), (long) hop) + facts.ahead - frames;
            int needed = (int) (hop - Math.floorDiv(-left, (long) facts.chunk) * size);
            held.zeros(Math.max(0, needed - held.size()));
            held.cut(needed);
        }
        while (held.size() >= hop + size) {
            if (frames == 0) {
                held.copy(0, states.inputs.get("past"), 0, hop);
            }
            held.copy(hop, states.inputs.get("sound"), 0, size);
            float[] inside = states.inputs.get("inside");
            int early = 0; // frames before the first
            for (int i = 0; i < facts.chunk; i++) {
                long number = frames - facts.ahead + i;
                early += number < 0 ? 1 : 0;
                inside[i] = number >= 0 && number < end ? 1f : 0f;
            }
            states.run();
            held.drop(size);
            frames += facts.chunk;
            sound.add(states.outputs.get("cleaned"), early * hop, size - early * hop);
            for (int i = early; i < facts.chunk; i++) {
                follow(states.outputs.get("top")[i]);
            }
        }
    }

    /** The gain goes in a straight line from the last frame's to this one's. */
    private void follow(float next) {
        float from = Float.isNaN(top) ? next : top;
        for (int i = 0; i < ramp.length; i++) {
            float part = (i + 1f) / ramp.length;
            ramp[i] = from * (1 - part) + next * part;
        }
        gains.add(ramp);
        top = next;
    }
}
