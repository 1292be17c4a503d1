package org.wavelldm.core;

import java.util.HashMap;
import java.util.Map;

/** One stream through a graph: what comes out as NAME_out goes in as NAME at the next call. At first it is zero. */
final class States {
    final Map<String, float[]> inputs = new HashMap<>();
    final Map<String, float[]> outputs = new HashMap<>();

    private final Graph graph;

    States(Graph graph) {
        this.graph = graph;
        graph.inputs().forEach((name, shape) -> inputs.put(name, new float[Graph.size(shape)]));
        graph.outputs().forEach((name, shape) -> outputs.put(name, new float[Graph.size(shape)]));
    }

    void run() {
        graph.run(inputs, outputs);
        for (String name : graph.inputs().keySet()) {
            float[] after = outputs.get(name + "_out");
            if (after != null) { // a state: the two arrays change places
                outputs.put(name + "_out", inputs.put(name, after));
            }
        }
    }
}
