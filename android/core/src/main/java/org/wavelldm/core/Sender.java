package org.wavelldm.core;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;

/**
 * Sound in blocks of any length -> packets, one for each frame, to be sent at once: the bytes that
 * `wavelldm compress --live` makes. `graph` is voice16k-live-encoder.onnx.
 */
public final class Sender {
    private static final int MOST = 9; // frames that a packet repeats

    private final Facts facts;
    private final States states;
    private final Samples held = new Samples();
    private final ArrayDeque<byte[]> before = new ArrayDeque<>(); // frames that the next packet repeats
    private final int codebooks;
    private final int repeat;
    private int early; // frames that lie before the beginning
    private long number;

    public Sender(Graph graph) {
        this(graph, graph.facts().codebooks, 0);
    }

    /** `repeat`: each packet holds so many of the frames before it once more. */
    public Sender(Graph graph, int codebooks, int repeat) {
        facts = graph.facts().of("live encoder");
        if (codebooks < 1 || codebooks > facts.codebooks) {
            throw new IllegalArgumentException(
                    "this codec has 1 to " + facts.codebooks + " codebooks, not " + codebooks);
        }
        if (repeat < 0 || repeat > MOST) {
            throw new IllegalArgumentException("a packet repeats 0 to " + MOST + " frames, not " + repeat);
        }
        this.codebooks = codebooks;
        this.repeat = repeat;
        states = new States(graph);
        early = facts.ahead;
    }

    /** Samples at the codec's rate -> the packets that they complete. */
    public List<byte[]> push(float[] wav) {
        List<byte[]> packets = new ArrayList<>();
        held.add(wav);
        while (held.size() >= facts.hop) {
            held.copy(0, states.inputs.get("wav"), 0, facts.hop);
            held.drop(facts.hop);
            states.run();
            if (early > 0) {
                early--;
                continue;
            }
            before.addLast(Packets.pack(states.outputs.get("codes"), codebooks, facts.entries));
            packets.add(Packets.join(facts, codebooks, number + 1 - before.size(), before));
            while (before.size() > repeat) {
                before.removeFirst();
            }
            number++;
        }
        return packets;
    }

    /** The packets still to come, once, at the end. */
    public List<byte[]> finish() {
        return push(new float[Math.floorMod(-held.size(), facts.hop) + facts.ahead * facts.hop]);
    }
}
