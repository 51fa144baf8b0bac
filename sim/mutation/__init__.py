"""Bugs planted in the production code one by one, to see that the simulator finds each."""
