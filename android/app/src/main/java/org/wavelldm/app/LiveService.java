package org.wavelldm.app;

import android.app.Notification;
import android.app.NotificationChannel;
import android.app.NotificationManager;
import android.app.PendingIntent;
import android.app.Service;
import android.content.BroadcastReceiver;
import android.content.Context;
import android.content.Intent;
import android.content.IntentFilter;
import android.content.pm.ServiceInfo;
import android.media.AudioAttributes;
import android.media.AudioFormat;
import android.media.AudioManager;
import android.media.AudioRecord;
import android.media.AudioTrack;
import android.media.MediaRecorder;
import android.os.Build;
import android.os.IBinder;
import android.os.Process;
import java.io.IOException;
import java.util.Random;
import org.wavelldm.core.Live;
import org.wavelldm.core.Talk;

/** Microphone -> core, which cleans or codes -> output, while the notification of this service is shown. */
public final class LiveService extends Service {
    static final String STOP = "org.wavelldm.app.STOP";

    private static final String CHANNEL = "live";
    private static final int NOTICE = 1;
    private static final int USUAL_RATE = 48_000;
    private static final int AHEAD = 3; // blocks that the output has in store, since the microphone delivers unevenly

    // what the activity sees and sets; both live in one process
    private static volatile Live live;
    private static volatile String problem;
    private static volatile boolean clean = true;
    private static volatile float strength = 1;
    private static volatile boolean talk; // hear oneself as in a call
    private static volatile float lost; // share of its packets
    private static volatile boolean on;

    private volatile boolean running;
    private Thread audio;
    private final BroadcastReceiver unplugged = new BroadcastReceiver() {
        @Override
        public void onReceive(Context context, Intent intent) {
            problem = getString(R.string.unplugged);
            stopSelf();
        }
    };

    @Override
    public void onCreate() {
        super.onCreate();
        registerReceiver(unplugged, new IntentFilter(AudioManager.ACTION_AUDIO_BECOMING_NOISY));
    }

    static Live live() {
        return live;
    }

    static boolean on() {
        return on;
    }

    /** Why the last run ended, or null. */
    static String problem() {
        return problem;
    }

    /** `call` counts from the next start on. */
    static void set(boolean wanted, float amount, boolean call, float share) {
        clean = wanted;
        strength = amount;
        talk = call;
        lost = share;
        Live now = live;
        if (now != null) {
            now.clean(wanted);
            now.strength(amount);
        }
    }

    @Override
    public IBinder onBind(Intent intent) {
        return null;
    }

    @Override
    public int onStartCommand(Intent intent, int flags, int id) {
        if (intent == null || STOP.equals(intent.getAction())) {
            stopSelf();
            return START_NOT_STICKY;
        }
        if (Build.VERSION.SDK_INT >= 30) {
            startForeground(NOTICE, notice(), ServiceInfo.FOREGROUND_SERVICE_TYPE_MICROPHONE);
        } else {
            startForeground(NOTICE, notice());
        }
        if (audio == null) {
            problem = null;
            running = true;
            on = true;
            audio = new Thread(this::play, "audio");
            audio.start();
        }
        return START_NOT_STICKY;
    }

    private Notification notice() {
        NotificationManager manager = getSystemService(NotificationManager.class);
        manager.createNotificationChannel(
                new NotificationChannel(CHANNEL, getString(R.string.channel), NotificationManager.IMPORTANCE_LOW));
        Intent stop = new Intent(this, LiveService.class).setAction(STOP);
        PendingIntent stops = PendingIntent.getService(this, 0, stop, PendingIntent.FLAG_IMMUTABLE);
        PendingIntent opens = PendingIntent.getActivity(
                this, 0, new Intent(this, MainActivity.class), PendingIntent.FLAG_IMMUTABLE);
        return new Notification.Builder(this, CHANNEL)
                .setSmallIcon(R.drawable.icon)
                .setContentTitle(getString(R.string.running))
                .setContentIntent(opens)
                .setOngoing(true)
                .addAction(new Notification.Action.Builder(null, getString(R.string.stop), stops).build())
                .build();
    }

    @Override
    public void onDestroy() {
        unregisterReceiver(unplugged);
        running = false;
        on = false;
        live = null;
        super.onDestroy();
    }

    /** The audio thread, from start to end. */
    private void play() {
        Process.setThreadPriority(Process.THREAD_PRIORITY_URGENT_AUDIO);
        int rate = rate();
        int block = rate / 100;
        AudioRecord source = null;
        AudioTrack target = null;
        Live stream = null;
        Thread worker = null;
        boolean call = talk;
        try (OrtGraph graph = new OrtGraph(this, call ? OrtGraph.ENCODER : OrtGraph.CLEANER);
                OrtGraph decoder = call ? new OrtGraph(this, OrtGraph.DECODER) : null) {
            try {
                source = source(rate, block);
                target = target(rate, block);
                stream = call
                        ? new Live(() -> new Talk(graph, decoder, rate, () -> lost, new Random()), rate, block)
                        : new Live(graph, rate, block);
                stream.clean(clean);
                stream.strength(strength);
                live = stream;
                worker = new Thread(stream, "worker");
                worker.start();
                target.write(new float[AHEAD * block], 0, AHEAD * block, AudioTrack.WRITE_BLOCKING);
                target.play();
                source.startRecording();
                loop(source, target, stream, new float[block]);
            } finally {
                if (live == stream) { // another run may have begun
                    live = null;
                }
                if (worker != null) {
                    stream.stop();
                    worker.join(); // before the graph closes
                }
            }
        } catch (IOException | RuntimeException error) {
            problem = error.getMessage();
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        } finally {
            if (source != null) {
                source.release();
            }
            if (target != null) {
                target.release();
            }
            stopSelf();
        }
    }

    private void loop(AudioRecord source, AudioTrack target, Live stream, float[] block) throws IOException {
        while (running) {
            int have = 0;
            while (have < block.length) {
                int n = source.read(block, have, block.length - have, AudioRecord.READ_BLOCKING);
                if (n <= 0) {
                    throw new IOException(getString(R.string.lost));
                }
                have += n;
            }
            stream.process(block, block.length);
            int done = 0;
            while (done < block.length) {
                int n = target.write(block, done, block.length - done, AudioTrack.WRITE_BLOCKING);
                if (n <= 0) {
                    throw new IOException(getString(R.string.lost));
                }
                done += n;
            }
            if (stream.failure() != null) {
                throw new IOException(getString(R.string.failed, stream.failure()));
            }
        }
    }

    /** The device's own rate, at which its output is fastest. */
    private int rate() {
        String told = getSystemService(AudioManager.class).getProperty(AudioManager.PROPERTY_OUTPUT_SAMPLE_RATE);
        try {
            int rate = Integer.parseInt(told);
            return rate >= 8_000 && rate <= 192_000 ? rate : USUAL_RATE;
        } catch (NumberFormatException error) {
            return USUAL_RATE;
        }
    }

    private AudioRecord source(int rate, int block) throws IOException {
        int least = AudioRecord.getMinBufferSize(rate, AudioFormat.CHANNEL_IN_MONO, AudioFormat.ENCODING_PCM_FLOAT);
        if (least > 0) {
            // VOICE_RECOGNITION: most phones leave this source as it is, without a noise suppressor of their own
            AudioRecord source = new AudioRecord(MediaRecorder.AudioSource.VOICE_RECOGNITION, rate,
                    AudioFormat.CHANNEL_IN_MONO, AudioFormat.ENCODING_PCM_FLOAT, Math.max(least, 16 * block));
            if (source.getState() == AudioRecord.STATE_INITIALIZED) {
                return source;
            }
            source.release();
        }
        throw new IOException(getString(R.string.no_microphone));
    }

    private AudioTrack target(int rate, int block) throws IOException {
        int least = AudioTrack.getMinBufferSize(rate, AudioFormat.CHANNEL_OUT_MONO, AudioFormat.ENCODING_PCM_FLOAT);
        if (least > 0) {
            AudioTrack target = new AudioTrack.Builder()
                    .setAudioAttributes(new AudioAttributes.Builder()
                            .setUsage(AudioAttributes.USAGE_MEDIA)
                            .setContentType(AudioAttributes.CONTENT_TYPE_SPEECH)
                            .build())
                    .setAudioFormat(new AudioFormat.Builder()
                            .setSampleRate(rate)
                            .setChannelMask(AudioFormat.CHANNEL_OUT_MONO)
                            .setEncoding(AudioFormat.ENCODING_PCM_FLOAT)
                            .build())
                    .setBufferSizeInBytes(Math.max(least, 4 * (AHEAD + 1) * block))
                    .setPerformanceMode(AudioTrack.PERFORMANCE_MODE_LOW_LATENCY)
                    .build();
            if (target.getState() == AudioTrack.STATE_INITIALIZED) {
                return target;
            }
            target.release();
        }
        throw new IOException(getString(R.string.no_speaker));
    }
}
