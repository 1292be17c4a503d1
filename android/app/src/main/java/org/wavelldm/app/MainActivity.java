package org.wavelldm.app;

import android.Manifest;
import android.app.Activity;
import android.content.ActivityNotFoundException;
import android.content.Intent;
import android.content.pm.PackageManager;
import android.database.Cursor;
import android.net.Uri;
import android.os.Build;
import android.os.Bundle;
import android.os.Handler;
import android.os.Looper;
import android.provider.DocumentsContract;
import android.provider.OpenableColumns;
import android.provider.Settings;
import android.view.View;
import android.widget.Button;
import android.widget.ProgressBar;
import android.widget.SeekBar;
import android.widget.Switch;
import android.widget.TextView;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import org.wavelldm.core.Live;
import org.wavelldm.core.Recording;
import org.wavelldm.core.WavWriter;

/** One page: the microphone, cleaned live, and a file. */
public final class MainActivity extends Activity implements SeekBar.OnSeekBarChangeListener {
    private static final int ALLOW = 1;
    private static final int OPEN = 2;
    private static final int SAVE = 3;
    private static final int PACE = 200; // milliseconds between looks at the meters

    private final Handler handler = new Handler(Looper.getMainLooper());
    private final Runnable meters = this::look;
    private Button start;
    private Switch talk;
    private Switch clean;
    private View strengthLabel;
    private SeekBar strength;
    private View lostLabel;
    private SeekBar lost;
    private TextView status;
    private Button choose;
    private ProgressBar progress;
    private TextView fileStatus;
    private Uri chosen;
    private boolean refused; // for good: only the settings can allow it
    private volatile Thread cleaner;

    @Override
    protected void onCreate(Bundle saved) {
        super.onCreate(saved);
        setContentView(R.layout.main);
        start = findViewById(R.id.start);
        talk = findViewById(R.id.talk);
        clean = findViewById(R.id.clean);
        strengthLabel = findViewById(R.id.strength_label);
        lostLabel = findViewById(R.id.lost_label);
        lost = findViewById(R.id.lost_packets);
        strength = findViewById(R.id.strength);
        status = findViewById(R.id.status);
        choose = findViewById(R.id.choose);
        progress = findViewById(R.id.progress);
        fileStatus = findViewById(R.id.file_status);
        start.setOnClickListener(view -> startOrStop());
        choose.setOnClickListener(view -> chooseOrStop());
        talk.setOnCheckedChangeListener((view, on) -> settings());
        clean.setOnCheckedChangeListener((view, on) -> settings());
        strength.setOnSeekBarChangeListener(this);
        lost.setOnSeekBarChangeListener(this);
    }

    @Override
    protected void onStart() {
        super.onStart();
        look();
    }

    @Override
    protected void onStop() {
        handler.removeCallbacks(meters);
        super.onStop();
    }

    @Override
    protected void onDestroy() {
        Thread working = cleaner;
        if (working != null) {
            working.interrupt();
        }
        super.onDestroy();
    }

    // --- live

    private void startOrStop() {
        if (LiveService.on()) {
            stopService(new Intent(this, LiveService.class));
        } else if (checkSelfPermission(Manifest.permission.RECORD_AUDIO) == PackageManager.PERMISSION_GRANTED) {
            settings();
            startForegroundService(new Intent(this, LiveService.class));
        } else if (refused) {
            Uri self = Uri.fromParts("package", getPackageName(), null);
            startActivity(new Intent(Settings.ACTION_APPLICATION_DETAILS_SETTINGS, self));
            refused = false; // ask again after that
        } else {
            requestPermissions(Build.VERSION.SDK_INT >= 33
                    ? new String[] {Manifest.permission.RECORD_AUDIO, Manifest.permission.POST_NOTIFICATIONS}
                    : new String[] {Manifest.permission.RECORD_AUDIO}, ALLOW);
        }
    }

    @Override
    public void onRequestPermissionsResult(int request, String[] names, int[] results) {
        super.onRequestPermissionsResult(request, names, results);
        if (request != ALLOW || results.length == 0) {
            return;
        }
        if (results[0] == PackageManager.PERMISSION_GRANTED) { // the notification may be refused
            startOrStop();
        } else {
            refused = !shouldShowRequestPermissionRationale(Manifest.permission.RECORD_AUDIO);
            status.setText(refused ? R.string.denied : R.string.no_permission);
        }
    }

    private void settings() {
        boolean call = talk.isChecked();
        for (View view : new View[] {clean, strengthLabel, strength}) {
            view.setVisibility(call ? View.GONE : View.VISIBLE);
        }
        for (View view : new View[] {lostLabel, lost}) {
            view.setVisibility(call ? View.VISIBLE : View.GONE);
        }
        LiveService.set(call || clean.isChecked(), strength.getProgress() / 100f, call, lost.getProgress() / 100f);
    }

    @Override
    public void onProgressChanged(SeekBar bar, int value, boolean byUser) {
        settings();
    }

    @Override
    public void onStartTrackingTouch(SeekBar bar) {}

    @Override
    public void onStopTrackingTouch(SeekBar bar) {}

    private void look() {
        Live live = LiveService.live();
        start.setText(LiveService.on() ? R.string.stop : R.string.start);
        talk.setEnabled(!LiveService.on());
        if (live != null && live.resting()) {
            status.setText(R.string.resting);
        } else if (live != null) {
            status.setText(getString(R.string.status, decibels(live.inLevel()), decibels(live.outLevel()),
                    1000 * live.seconds(), 100 * live.load(), live.missed()));
        } else if (LiveService.problem() != null) {
            status.setText(LiveService.problem());
        }
        handler.postDelayed(meters, PACE);
    }

    private static double decibels(float level) {
        return 20 * Math.log10(Math.max(1e-5, level));
    }

    // --- a file

    private void chooseOrStop() {
        Thread working = cleaner;
        if (working != null) {
            working.interrupt();
            return;
        }
        pick(new Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("audio/*"), OPEN);
    }

    private void pick(Intent intent, int request) {
        try {
            startActivityForResult(intent, request);
        } catch (ActivityNotFoundException error) {
            fileStatus.setText(R.string.no_picker);
        }
    }

    @Override
    protected void onActivityResult(int request, int result, Intent data) {
        super.onActivityResult(request, result, data);
        if (result != RESULT_OK || data == null || data.getData() == null) {
            return;
        }
        if (request == OPEN) {
            chosen = data.getData();
            String name = name(chosen).replaceFirst("\\.[^.]*$", "");
            pick(new Intent(Intent.ACTION_CREATE_DOCUMENT)
                    .addCategory(Intent.CATEGORY_OPENABLE)
                    .setType("audio/x-wav")
                    .putExtra(Intent.EXTRA_TITLE, getString(R.string.suffix, name)), SAVE);
        } else if (request == SAVE && chosen != null && cleaner == null) {
            begin(chosen, data.getData());
        }
    }

    private String name(Uri uri) {
        String[] wanted = {OpenableColumns.DISPLAY_NAME};
        try (Cursor row = getContentResolver().query(uri, wanted, null, null, null)) {
            return row != null && row.moveToFirst() && row.getString(0) != null ? row.getString(0) : "recording";
        }
    }

    private void begin(Uri source, Uri target) {
        fileStatus.setText(getString(R.string.cleaning, name(source)));
        progress.setProgress(0);
        progress.setVisibility(View.VISIBLE);
        choose.setText(R.string.stop);
        cleaner = new Thread(() -> {
            String said = clean(source, target);
            handler.post(() -> {
                cleaner = null;
                fileStatus.setText(said);
                progress.setVisibility(View.GONE);
                choose.setText(R.string.choose);
            });
        }, "cleaner");
        cleaner.start();
    }

    /** Cleans a file, whole or not at all, and says what came of it. */
    private String clean(Uri source, Uri target) {
        String said;
        try (OrtGraph graph = new OrtGraph(this, OrtGraph.CLEANER);
                OutputStream file = getContentResolver().openOutputStream(target, "wt")) {
            if (file == null) {
                throw new IOException("the place to save to does not open; choose another one");
            }
            OutputStream out = new BufferedOutputStream(file, 1 << 16);
            boolean whole = Recording.clean(graph, () -> new MediaSource(this, source), new WavWriter(out), 1, 0,
                    part -> {
                        handler.post(() -> progress.setProgress((int) (1000 * part)));
                        return !Thread.currentThread().isInterrupted();
                    });
            out.flush();
            if (whole) {
                return getString(R.string.saved);
            }
            said = getString(R.string.stopped);
        } catch (IOException | RuntimeException error) {
            said = String.valueOf(error.getMessage());
        }
        try {
            DocumentsContract.deleteDocument(getContentResolver(), target);
        } catch (IOException | RuntimeException error) {
            return said; // what is left of it is no whole WAV file; nothing more can be done
        }
        return said;
    }
}
