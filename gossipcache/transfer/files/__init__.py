"""Content between the user's files and the store: ingest on the way in, output on the way out."""
