"""Networks for other programs: phones, browsers, and machines without PyTorch.

`graphs` holds the mask networks as an exporter can see them, `codec` the codec; `write` makes ONNX files of them, and
checks these.
"""
