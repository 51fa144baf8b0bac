"""Cores as callbacks on a heap of events, without Trio: clusters of thousands of nodes."""
