"""Schedules of faults drawn from the seed, over nodes at work."""
