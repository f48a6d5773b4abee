"""Labels of a run that are probably wrong; --help explains."""

import sys

from otrw.commands.audit import main
from otrw.commands.exit import exit_with_message

if __name__ == "__main__":
    exit_with_message(lambda: main(sys.argv[1:]))
