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

    private Facts(Map<String, String> found) {
        name = found.get("name");
        form = found.get("form");
        rate = number(found, "sr");
        hop = number(found, "hop");
        ahead = number(found, "ahead");
        latency = number(found, "latency");
        chunk = found.containsKey("chunk") ? number(found, "chunk") : 1;
    }

    /** Facts of a graph for streams; anything else is refused with a sentence. */
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
        Facts facts = new Facts(found);
        if (!facts.form.equals("stream")) {
            throw new IllegalArgumentException(
                    facts.name + " is not for streams; write one with: wavelldm export live --streaming");
        }
        return facts;
    }

    private static int number(Map<String, String> found, String key) {
        try {
            return Integer.parseInt(found.get(key));
        } catch (NumberFormatException error) {
            throw new IllegalArgumentException("the facts of this graph name no " + key + "; export it again");
        }
    }
}
