"""Models in ONNX form, on onnxruntime or OpenVINO: the cross-encoder, and how to make a folder of one."""
