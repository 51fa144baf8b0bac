"""Whole nodes in a simulated world: the production code on Trio and virtual time."""
