"""A trained model as a file that other runtimes run: ONNX, or PyTorch's own `.pt2`."""
