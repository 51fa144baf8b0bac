"""`python -m gossipcache.cli`."""

import sys

from gossipcache.cli import main

if __name__ == "__main__":
    sys.exit(main())
