"""Kernels for what stays sparse inside a layer: C++ sources, how they are compiled, and the layers that they run."""
