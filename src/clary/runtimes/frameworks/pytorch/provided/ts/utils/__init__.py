"""Helpers of TorchServe that handlers import."""
