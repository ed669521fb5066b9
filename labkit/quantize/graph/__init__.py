"""Quantization as it is written into an ONNX graph: which tensors are put on grids, and the QDQ nodes that say so."""
