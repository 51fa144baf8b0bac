"""What each task is: its record on three keepers, written and read by quorum, and repaired."""
