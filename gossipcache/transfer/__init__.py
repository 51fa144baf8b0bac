"""Pieces: how they are cut, stored, asked for, sent and verified."""
