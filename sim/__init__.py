"""Breaks whole clusters on purpose, on virtual time, from a seed."""
