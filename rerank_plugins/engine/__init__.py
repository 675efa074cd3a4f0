"""What runs local models: tokenizer, batches, ONNX sessions, worker threads. Knows no recipe and no backend."""
