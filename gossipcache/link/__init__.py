"""Authenticated connections between nodes: CBOR messages and pieces over websockets."""
