"""The front door: `gossipcache`, or `python -m gossipcache`."""

import gc
import os
import signal
import sys


def main() -> int:
    """Runs one command and returns its exit code.

    While the commands are loaded, Ctrl-C ends the process as the system does, without a traceback.
    Garbage is looked for while a command runs only: what loading makes stays, and what is there
    at the end goes with the process. That is an eighth of the time of a short command.
    """
    gc.disable()
    _open_missing_descriptors()
    at_interrupt = signal.getsignal(signal.SIGINT)
    if at_interrupt is signal.default_int_handler:  # a shell's `&` has it ignored: leave it so
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from gossipcache.cli import main as run

    signal.signal(signal.SIGINT, at_interrupt)
    gc.enable()
    try:
        return run()
    finally:
        gc.freeze()


def _open_missing_descriptors() -> None:
    """Puts /dev/null where stdin, stdout or stderr were closed, so that no file or socket takes
    their numbers and is written to by mistake."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
