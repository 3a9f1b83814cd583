"""Command line: python -m swiftattn info | generate | embed | attend | bench."""

import signal
import sys

from swiftattn.cli import main

if __name__ == "__main__":
    # Ctrl-C and a reader that closes the pipe end the program at once and without a word, as for any Unix tool.
    for name in ("SIGINT", "SIGPIPE"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    sys.exit(main())
