"""One thread for each process, set before torch is imported: sums then come out the same everywhere, and a busy
machine does not make two threads wait for each other."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
