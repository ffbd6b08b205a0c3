"""ONNX files as models: read into a torch.fx graph of torch functions, and compared with ONNX Runtime's own run."""
