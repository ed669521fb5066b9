"""What labkit's quantization reaches, beside the tools that professionals use: `python -m benchmarks.quantization`."""
