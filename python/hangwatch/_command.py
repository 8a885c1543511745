"""The ``hangwatch`` command."""

import os
import shutil
import signal
import sys

from hangwatch import _hangwatch


def main() -> None:
    """Run the command as the console script does; it ends this process."""
    # What re-executes the command must find this script, not the interpreter.
    program = shutil.which(sys.argv[0]) or sys.argv[0]
    os.environ["HANGWATCH_PROGRAM"] = os.path.abspath(program)
    # As a native program begins: Python has changed these, and commands would inherit them. (SIGPIPE
    # stays ignored, as in a native program: a hook that does not read must not end the watchdog.
    # Commands get it back.)
    for name in ("SIGINT", "SIGXFSZ"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    _hangwatch.main(["hangwatch", *sys.argv[1:]])
