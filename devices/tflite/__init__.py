"""Writing TFLite models from ONNX models."""
