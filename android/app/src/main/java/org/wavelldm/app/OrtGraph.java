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
import java.nio.file.Files;
import java.nio.file.StandardCopyOption;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import org.wavelldm.core.Facts;
import org.wavelldm.core.Graph;

/** The graph that ships, base16k.onnx among the assets, run by onnxruntime on one thread. */
final class OrtGraph implements Graph, AutoCloseable {
    private static final String MODEL = "base16k.onnx";
    private static final String WEIGHTS = "base16k-mask.safetensors"; // beside it

    private final OrtSession session;
    private final Facts facts;
    private final Map<String, int[]> inputs;
    private final Map<String, int[]> outputs;
    private final Map<String, FloatBuffer> buffers = new HashMap<>();
    private final Map<String, OnnxTensor> tensors = new HashMap<>(); // each sees its buffer

    OrtGraph(Context context) throws IOException {
        try {
            OrtEnvironment environment = OrtEnvironment.getEnvironment();
            OrtSession.SessionOptions options = new OrtSession.SessionOptions();
            options.setIntraOpNumThreads(1);
            options.setInterOpNumThreads(1);
            session = environment.createSession(unpacked(context), options);
            facts = Facts.parse(session.getMetadata().getCustomMetadata().get("wavelldm"));
            inputs = shapes(session.getInputInfo());
            outputs = shapes(session.getOutputInfo());
            for (Map.Entry<String, int[]> input : inputs.entrySet()) {
                int[] shape = input.getValue();
                long[] sizes = new long[shape.length];
                for (int i = 0; i < shape.length; i++) {
                    sizes[i] = shape[i];
                }
                FloatBuffer buffer = ByteBuffer.allocateDirect(4 * Graph.size(shape))
                        .order(ByteOrder.nativeOrder()).asFloatBuffer();
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
    private static String unpacked(Context context) throws IOException {
        File folder = context.getFilesDir();
        for (String name : new String[] {MODEL, WEIGHTS}) {
            try (InputStream source = context.getAssets().open(name)) {
                Files.copy(source, new File(folder, name).toPath(), StandardCopyOption.REPLACE_EXISTING);
            }
        }
        return new File(folder, MODEL).getPath();
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
        try (OrtSession.Result result = session.run(tensors)) {
            for (String name : outputs.keySet()) {
                ((OnnxTensor) result.get(name).get()).getFloatBuffer().get(answer.get(name));
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
