"""What the jobs of this folder share: when to hang, and where.

The jobs are ordinary torch scripts: none knows hangwatch. ``FAULT=1`` has one hang, at the line that ends
in ``# hangs here``, in its first attempt only.
"""

import os
import threading

FIRST = os.environ.get("TORCHELASTIC_RESTART_COUNT", os.environ.get("ATTEMPT", "0")) == "0"
FAULT = os.environ.get("FAULT") == "1" and FIRST


def wait_forever():
    """For something that never comes."""
    threading.Event().wait()


def read_a_dead_disk():
    """Stands for one: a pipe that nobody writes into."""
    reader, _writer = os.pipe()
    os.read(reader, 1)
