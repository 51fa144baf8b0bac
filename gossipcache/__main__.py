"""`python -m gossipcache`: the command line."""

from gossipcache.cli import main

if __name__ == "__main__":
    main()
