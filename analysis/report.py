"""One HTML page of a run; --help explains."""

import sys

from otrw.commands.exit import exit_with_message
from otrw.commands.report import main

if __name__ == "__main__":
    exit_with_message(lambda: main(sys.argv[1:]))
