"""How well each method finds wrong labels; --help explains."""

import sys

from otrw.commands.exit import exit_with_message
from otrw.commands.experiment import main

if __name__ == "__main__":
    exit_with_message(lambda: main("finding_wrong_labels", sys.argv[1:]))
