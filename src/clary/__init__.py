"""Clary: SageMaker on your own machines."""
