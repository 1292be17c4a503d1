import json
import os
import signal
import threading
import time

import numpy as np
import soundfile as sf
from batched import equal_to_the_loop, most_held, noisy, settings, tree

from wavelldm.batch import ledger, processes, run
from wavelldm.batch.places import Place


def test_a_killed_worker_costs_nothing(ray_here, tmp_path):
    source, place, killed = tree(tmp_path / "in", 6), Place(str(tmp_path / "out")), []

    def kill() -> None:
        while not killed:
            for name, _ in place.listing(ledger.TRYING):
                try:
                    pid = json.loads(place.read(name))["pid"]
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
                except (OSError, ValueError):
                    continue
            time.sleep(0.01)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    rows: list[dict] = []
    result = run.run(str(source), str(tmp_path / "out"), settings(source), run.Cluster(2), seen=rows.append)
    assert killed and (result["files"], result["failed"]) == (6, 0)
    assert killed[0] not in {row["pid"] for row in rows if row["files"] and row["pid"] in processes.family(os.getpid())}
    equal_to_the_loop(source, tmp_path / "out", tmp_path / "alone.wav")
    again = run.run(str(source), str(tmp_path / "out"), settings(source), run.Cluster(2))
    assert again["skipped"] == 6 and again["files"] == 6


def test_memory_does_not_grow_with_the_source(ray_here, tmp_path):
    """Files of many bytes for little work. Of the bytes by which one source is larger than the other, driver, workers
    and Ray's store hold but a small share."""
    wav, held, size = np.repeat(noisy(1.0), 12), [], []
    for number in (6, 24):
        source = tmp_path / f"in{number}"
        source.mkdir()
        for i in range(number):
            sf.write(source / f"{i}.wav", wav, 192_000, subtype="DOUBLE")
        rows: list[dict] = []
        target = tmp_path / f"out{number}"
        with most_held() as found:
            run.run(str(source), str(target), settings(source), run.Cluster(2), seen=rows.append)
        held.append(sum(found.values()) + max(row["megabytes"] for row in rows))
        size.append(sum(path.stat().st_size for path in source.iterdir()) / 1e6)
    assert held[1] - held[0] < (size[1] - size[0]) / 4, (held, size)
