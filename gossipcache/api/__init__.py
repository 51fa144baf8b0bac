"""The library: `cache` for any program, `trio_cache` for Trio; import it from `gossipcache`."""
