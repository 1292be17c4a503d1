package org.wavelldm.core;

import java.util.Map;

/** An ONNX file that is ready to run. It keeps no state of its own: states are inputs and outputs. */
public interface Graph {
    Facts facts();

    /** Names and shapes. The state that goes in as NAME comes out as NAME_out. */
    Map<String, int[]> inputs();

    Map<String, int[]> outputs();

    /** One call: reads every array of inputs, fills every array of outputs. */
    void run(Map<String, float[]> inputs, Map<String, float[]> outputs);

    /** Values of an array of this shape. */
    static int size(int[] shape) {
        int size = 1;
        for (int n : shape) {
            size *= n;
        }
        return size;
    }
}
