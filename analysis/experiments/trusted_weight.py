"""How much the trusted images weigh in the loss; --help explains."""

import sys

from otrw.commands.exit import exit_with_message
from otrw.commands.experiment import main

if __name__ == "__main__":
    exit_with_message(lambda: main("trusted_weight", sys.argv[1:]))
