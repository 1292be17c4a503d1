package org.wavelldm.core;

import java.util.Random;
import java.util.function.DoubleSupplier;

/** What the other side of a call hears: sound through packets of one frame each, of which some get lost. */
public final class Talk implements Voice {
    private static final double GOES_ON = 0.5; // how likely a gap goes on: two packets in the mean

    private final Sender sender;
    private final Receiver receiver;
    private final Resampler down;
    private final Resampler up;
    private final DoubleSupplier share;
    private final Random random;
    private final int latency;
    private boolean gone;

    /** One channel at any rate. `share`: of the packets that get lost, asked for each one. */
    public Talk(Graph encoder, Graph decoder, int rate, DoubleSupplier share, Random random) {
        sender = new Sender(encoder);
        receiver = new Receiver(decoder);
        receiver.begin();
        this.share = share;
        this.random = random;
        Facts facts = encoder.facts();
        down = new Resampler(rate, facts.rate, 1);
        up = new Resampler(facts.rate, rate, 1);
        latency = down.late(facts.latency, up);
    }

    @Override
    public int latency() {
        return latency;
    }

    @Override
    public float[][] push(float[][] block) {
        Samples made = new Samples();
        for (byte[] packet : sender.push(down.push(block)[0])) {
            if (!loses()) {
                receiver.put(packet);
            }
            made.add(receiver.take());
        }
        return up.push(new float[][] {made.take(made.size())});
    }

    /** In gaps of two in the mean (Gilbert's chain of two states). */
    private boolean loses() {
        double share = Math.min(0.99, this.share.getAsDouble());
        gone = share > 0 && random.nextDouble() < (gone ? GOES_ON : (1 - GOES_ON) * share / (1 - share));
        return gone;
    }
}
