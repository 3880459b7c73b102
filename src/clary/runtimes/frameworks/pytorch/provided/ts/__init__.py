"""What TorchServe's handlers import, without TorchServe. An installed torchserve is found before this."""

__version__ = "0.12.0"
