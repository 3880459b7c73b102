"""Generated types of the AWS operations implemented here; one module per service."""
