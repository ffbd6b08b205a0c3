"""The passes inside other people's pipelines: torch.fx's PassManager, torch.compile, Torch-TensorRT."""
