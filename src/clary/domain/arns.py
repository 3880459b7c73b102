"""Amazon resource names. Names keep their case in resources and are lower-cased inside SageMaker's ARNs."""

from typing import NamedTuple


class Arn(NamedTuple):
    partition: str
    service: str
    region: str
    account: str
    resource: str

    def __str__(self) -> str:
        return f"arn:{self.partition}:{self.service}:{self.region}:{self.account}:{self.resource}"


def parse_arn(text: str) -> Arn | None:
    """The parts of an ARN, or None when it is none."""
    parts = text.split(":", 5)
    if len(parts) != 6 or parts[0] != "arn":
        return None
    return Arn(*parts[1:])


def sagemaker_arn(region: str, account: str, kind: str, name: str) -> str:
    """`arn:aws:sagemaker:REGION:ACCOUNT:KIND/name`, KIND as in `endpoint-config`."""
    return str(Arn("aws", "sagemaker", region, account, f"{kind}/{name.lower()}"))


def log_group_arn(region: str, account: str, group: str) -> str:
    return str(Arn("aws", "logs", region, account, f"log-group:{group}"))


def endpoint_log_group(endpoint_name: str) -> str:
    return f"/aws/sagemaker/Endpoints/{endpoint_name}"
