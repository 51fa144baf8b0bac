"""Rivals, run as processes of their own, from a virtual environment of their own."""
