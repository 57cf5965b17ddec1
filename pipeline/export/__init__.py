"""Export of a run: ONNX graph, parity check, class activation maps, model card."""
