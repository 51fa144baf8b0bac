"""Speed, as ratios to rivals measured in the same run."""
