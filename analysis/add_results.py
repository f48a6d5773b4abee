"""Copy the records of finished runs into analysis/results/; --help explains."""

import sys

from otrw.commands.add_results import main
from otrw.commands.exit import exit_with_message

if __name__ == "__main__":
    exit_with_message(lambda: main(sys.argv[1:]))
