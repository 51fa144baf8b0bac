"""The simulated disk: what is written, what is durable, and what goes wrong with it."""
