"""Kernels of condensed layers for NVIDIA GPUs: in Triton for torch, in CUDA C++ for TensorRT's plugins."""
