"""Data to train on: images with labels."""
