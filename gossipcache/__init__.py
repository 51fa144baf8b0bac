"""gossipcache: a peer-to-peer file cache with no central index."""

__version__ = "0.1.0"
