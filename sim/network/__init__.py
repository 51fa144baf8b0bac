"""The simulated network: hosts, streams, datagrams, and what goes wrong with them."""
