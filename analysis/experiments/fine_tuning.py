"""The whole net fine-tuned from one noisy stage 1; --help explains."""

import sys

from otrw.commands.exit import exit_with_message
from otrw.commands.experiment import main

if __name__ == "__main__":
    exit_with_message(lambda: main("fine_tuning", sys.argv[1:]))
