"""Slimming a module: its own classes, with smaller parameters."""
