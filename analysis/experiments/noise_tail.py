"""Wrong labels and a long tail, every method against every kind of noise; --help explains."""

import sys

from otrw.commands.exit import exit_with_message
from otrw.commands.experiment import main

if __name__ == "__main__":
    exit_with_message(lambda: main("noise_tail", sys.argv[1:]))
