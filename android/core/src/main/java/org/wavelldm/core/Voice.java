package org.wavelldm.core;

/** A stream that makes another sound of each channel, of the same length; both are in phase. */
public interface Voice {
    /** The most samples that are in and not yet out. */
    int latency();

    /** The next samples of each channel -> what is certain now. */
    float[][] push(float[][] block);

    /** How much is changed, from now on, where that can be chosen. */
    default void strength(float strength) {}
}
