"""Handlers to derive from. TorchServe's own for pictures and texts need torchvision or torchtext: see `torchserve`."""
