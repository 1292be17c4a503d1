"""Networks for other programs: phones, browsers, and machines without PyTorch.

`graphs` holds the networks as an exporter can see them; `write` makes one ONNX file of each, and checks it.
"""
