"""Connections between nodes: handshake, frames, requests, pieces, and what strangers may do."""
