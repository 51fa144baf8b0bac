"""One download: which piece from whom, verified and written, shared by all who want it."""
