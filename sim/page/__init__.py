"""The page of a run: one self-contained HTML file, drawn from its chronicle."""
