package org.wavelldm.core;

import java.util.HashMap;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** What a graph says of itself, in its metadata under "wavelldm": one flat JSON object. */
public final class Facts {
    public static final int FORMAT = 1;

    private static final Pattern ENTRY =
            Pattern.compile("\"(\\w+)\"\\s*:\\s*(?:\"((?:[^\"\\\\]|\\\\.)*)\"|(-?\\d+))");

    public final String name;
    public final String form;
    public final int rate;
    public final int hop;
    /** Frames that it looks ahead. */
    public final int ahead;
    /** Samples at its own rate that a stream is late. */
    public final int latency;
    /** Frames of one call. */
    public final int chunk;
    /** Of a codec: its codebooks, the entries of each, and the two bytes that say which codes these are. */
    public final int codebooks;
    public final int entries;
    final byte[] tag;

    private Facts(Map<String, String> found) {
        name = found.get("name");
        form = found.get("form");
        rate = number(found, "sr");
        hop = number(found, "hop");
        ahead = number(found, "ahead");
        latency = number(found, "latency");
        chunk = found.containsKey("chunk") ? number(found, "chunk") : 1;
        boolean codec = found.containsKey("tag");
        codebooks = codec ? number(found, "codebooks") : 0;
        entries = codec ? number(found, "entries") : 0;
        int two = codec ? Integer.parseInt(found.get("tag"), 16) : 0;
        tag = new byte[] {(byte) (two >> 8), (byte) two};
    }

    /** These facts, if the graph is of this form; anything else is refused with a sentence. */
    Facts of(String form) {
        if (!this.form.equals(form)) {
            throw new IllegalArgumentException(form.equals("stream")
                    ? name + " is not for streams; write one with: wavelldm export live --streaming"
                    : name + " is no " + form + "; write one with: wavelldm export voice16k-live --part "
                            + form.replace("live ", ""));
        }
        return this;
    }

    /** Facts of a graph of this format; anything else is refused with a sentence. */
    public static Facts parse(String json) {
        Map<String, String> found = new HashMap<>();
        Matcher entries = ENTRY.matcher(json == null ? "" : json);
        while (entries.find()) {
            found.put(entries.group(1), entries.group(2) == null ? entries.group(3) : entries.group(2));
        }
        if (!found.containsKey("format") || !found.containsKey("name") || !found.containsKey("form")) {
            throw new IllegalArgumentException(
                    "this file is no graph of wavelldm; write one with: wavelldm export live --streaming");
        }
        if (number(found, "format") != FORMAT) {
            throw new IllegalArgumentException("this graph has format " + found.get("format")
                    + " and this program runs " + FORMAT + "; export it again");
        }
        return new Facts(found);
    }

    private static int number(Map<String, String> found, String key) {
        try {
            return Integer.parseInt(found.get(key));
        } catch (NumberFormatException error) {
            throw new IllegalArgumentException("the facts of this graph name no " + key + "; export it again");
        }
    }
}
