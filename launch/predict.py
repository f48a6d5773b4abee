"""Classes and probabilities of images by a trained net; --help explains."""

import sys

from otrw.commands.exit import exit_with_message
from otrw.commands.predict import main

if __name__ == "__main__":
    exit_with_message(lambda: main(sys.argv[1:]))
