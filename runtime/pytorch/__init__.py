"""Graphs that torch itself runs on a GPU: their files, their precision, the session, and times of single layers."""
