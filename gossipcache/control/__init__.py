"""The node's local HTTP API: verbs as JSON, progress as NDJSON, content with ranges."""
