"""Making a failing run small: the search, its steps, and what counts as the same failure."""
