package org.wavelldm.core;

import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * A graph that ships, run by onnxruntime in another process: vectors.py serve. The property wavelldm.python names the
 * Python, and wavelldm.server the script.
 */
final class PipeGraph implements Graph, AutoCloseable {
    private final Process process;
    private final DataInputStream source;
    private final OutputStream target;
    private final Facts facts;
    private final Map<String, int[]> inputs = new LinkedHashMap<>();
    private final Map<String, int[]> outputs = new LinkedHashMap<>();
    int calls;

    @SuppressWarnings("deprecation") // readLine: the header is ASCII
    PipeGraph(String name) throws IOException {
        String python = System.getProperty("wavelldm.python");
        process = new ProcessBuilder(python, System.getProperty("wavelldm.server"), "serve", name)
                .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        source = new DataInputStream(new BufferedInputStream(process.getInputStream(), 1 << 17));
        target = new BufferedOutputStream(process.getOutputStream(), 1 << 17);
        facts = Facts.parse(source.readLine());
        for (String line = source.readLine(); !line.isEmpty(); line = source.readLine()) {
            String[] parts = line.split(" ");
            String[] numbers = parts[2].split(",");
            int[] shape = new int[numbers.length];
            for (int i = 0; i < shape.length; i++) {
                shape[i] = Integer.parseInt(numbers[i]);
            }
            (parts[0].equals("in") ? inputs : outputs).put(parts[1], shape);
        }
    }

    @Override
    public Facts facts() {
        return facts;
    }

    @Override
    public Map<String, int[]> inputs() {
        return inputs;
    }

    @Override
    public Map<String, int[]> outputs() {
        return outputs;
    }

    @Override
    public void run(Map<String, float[]> given, Map<String, float[]> answer) {
        calls++;
        try {
            for (String name : inputs.keySet()) {
                float[] values = given.get(name);
                ByteBuffer bytes = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
                bytes.asFloatBuffer().put(values);
                target.write(bytes.array());
            }
            target.flush();
            for (String name : outputs.keySet()) {
                byte[] bytes = new byte[4 * answer.get(name).length];
                source.readFully(bytes);
                ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(answer.get(name));
            }
        } catch (IOException error) {
            throw new IllegalStateException("the process that runs the graph has ended", error);
        }
    }

    @Override
    public void close() throws IOException {
        target.close();
        process.destroy();
    }
}
