"""Virtual time, seeded chance, simulated processes: what makes a run repeatable."""
