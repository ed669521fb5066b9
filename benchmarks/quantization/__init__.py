"""What labkit's quantization reaches, beside the tools that professionals use: `python -m benchmarks.quantization`."""

MODELS = ("resnet20", "mobilenet", "vit")
RUNTIMES = ("onnxruntime", "openvino")
