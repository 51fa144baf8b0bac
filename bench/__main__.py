"""`python -m bench list` and `python -m bench NAME [--json] [--runs N]`."""

from __future__ import annotations

from bench.command import main

if __name__ == "__main__":
    main()
