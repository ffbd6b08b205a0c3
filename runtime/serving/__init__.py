"""Serving by NVIDIA Triton Inference Server: the configuration of models, and a small client."""
