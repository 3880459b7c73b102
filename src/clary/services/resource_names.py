"""Which member of a request names the resource it is about, for services whose requests do not say it as an ARN."""

from typing import NamedTuple


class Named(NamedTuple):
    """Operations whose names end so are about a resource of this word, named by this member."""

    operation_suffix: str
    word: str
    member: str


# Longer suffixes come first: CreateEndpointConfig does not end in Endpoint, but others may share an ending.
SAGEMAKER_MEMBERS = (
    Named("EndpointWeightsAndCapacities", "endpoint", "EndpointName"),
    Named("EndpointConfig", "endpoint-config", "EndpointConfigName"),
    Named("Endpoint", "endpoint", "EndpointName"),
    Named("Model", "model", "ModelName"),
)

IAM_MEMBERS = (("UserName", "user"), ("RoleName", "role"), ("PolicyName", "policy"))
