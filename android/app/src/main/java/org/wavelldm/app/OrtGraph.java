package org.wavelldm.app;

import ai.onnxruntime.NodeInfo;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;
import android.content.Context;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.nio.file.Files;
import java.nio.file.StandardCopyOption;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import org.wavelldm.core.Facts;
import org.wavelldm.core.Graph;

/** A graph among the assets, run by onnxruntime on one thread. */
final class OrtGraph implements Graph, AutoCloseable {
    static final String[] CLEANER = {"base16k.onnx", "base16k-mask.safetensors"}; // and the weights beside it
    static final String[] ENCODER = {"voice16k-live-encoder.onnx", "voice16k-live.safetensors"};
    static final String[] DECODER = {"voice16k-live-decoder.onnx", "voice16k-live.safetensors"};

    private static final String CODES = "codes"; // whole numbers; all else is floats

    private final OrtSession session;
    private final Facts facts;
    private final Map<String, int[]> inputs;
    private final Map<String, int[]> outputs;
    private final Map<String, FloatBuffer> buffers = new HashMap<>();
    private LongBuffer codes; // where they go in
    private final Map<String, OnnxTensor> tensors = new HashMap<>(); // each sees its buffer

    OrtGraph(Context context, String[] files) throws IOException {
        try {
            OrtEnvironment environment = OrtEnvironment.getEnvironment();
            OrtSession.SessionOptions options = new OrtSession.SessionOptions();
            options.setIntraOpNumThreads(1);
            options.setInterOpNumThreads(1);
            session = environment.createSession(unpacked(context, files), options);
            facts = Facts.parse(session.getMetadata().getCustomMetadata().get("wavelldm"));
            inputs = shapes(session.getInputInfo());
            outputs = shapes(session.getOutputInfo());
            for (Map.Entry<String, int[]> input : inputs.entrySet()) {
                int[] shape = input.getValue();
                long[] sizes = new long[shape.length];
                for (int i = 0; i < shape.length; i++) {
                    sizes[i] = shape[i];
                }
                boolean whole = input.getKey().equals(CODES);
                ByteBuffer room = ByteBuffer.allocateDirect((whole ? 8 : 4) * Graph.size(shape))
                        .order(ByteOrder.nativeOrder());
                if (whole) {
                    codes = room.asLongBuffer();
                    tensors.put(CODES, OnnxTensor.createTensor(environment, codes, sizes));
                    continue;
                }
                FloatBuffer buffer = room.asFloatBuffer();
                buffers.put(input.getKey(), buffer);
                tensors.put(input.getKey(), OnnxTensor.createTensor(environment, buffer, sizes));
            }
        } catch (LinkageError error) {
            throw new IOException("onnxruntime does not run on this phone; use the web page instead", error);
        } catch (OrtException error) {
            throw new IOException("the model cannot be run (" + error.getMessage() + "); install the app again", error);
        }
    }

    /** The path of the model: onnxruntime reads the weights from a file beside it. */
    private static String unpacked(Context context, String[] files) throws IOException {
        File folder = context.getFilesDir();
        for (String name : files) {
            try (InputStream source = context.getAssets().open(name)) {
                Files.copy(source, new File(folder, name).toPath(), StandardCopyOption.REPLACE_EXISTING);
            }
        }
        return new File(folder, files[0]).getPath();
    }

    private static Map<String, int[]> shapes(Map<String, NodeInfo> infos) {
        Map<String, int[]> found = new LinkedHashMap<>();
        for (Map.Entry<String, NodeInfo> info : infos.entrySet()) {
            long[] sizes = ((TensorInfo) info.getValue().getInfo()).getShape();
            int[] shape = new int[sizes.length];
            for (int i = 0; i < shape.length; i++) {
                shape[i] = (int) sizes[i];
            }
            found.put(info.getKey(), shape);
        }
        return found;
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
        for (Map.Entry<String, FloatBuffer> entry : buffers.entrySet()) {
            FloatBuffer buffer = entry.getValue();
            buffer.clear();
            buffer.put(given.get(entry.getKey()));
            buffer.rewind();
        }
        if (codes != null) {
            codes.clear();
            for (float code : given.get(CODES)) {
                codes.put((long) code);
            }
            codes.rewind();
        }
        try (OrtSession.Result result = session.run(tensors)) {
            for (String name : outputs.keySet()) {
                OnnxTensor tensor = (OnnxTensor) result.get(name).get();
                float[] values = answer.get(name);
                if (name.equals(CODES)) {
                    LongBuffer whole = tensor.getLongBuffer();
                    for (int i = 0; i < values.length; i++) {
                        values[i] = whole.get(i);
                    }
                } else {
                    tensor.getFloatBuffer().get(values);
                }
            }
        } catch (OrtException error) {
            throw new IllegalStateException("the model failed (" + error.getMessage() + ")", error);
        }
    }

    @Override
    public void close() {
        try {
            for (OnnxTensor tensor : tensors.values()) {
                tensor.close();
            }
            session.close();
        } catch (OrtException error) {
            throw new IllegalStateException("the model does not close (" + error.getMessage() + ")", error);
        }
    }
}
