"""The messages that nodes exchange, one module for each conversation."""
