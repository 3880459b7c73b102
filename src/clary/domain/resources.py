"""Kinds of resources: the word in their ARN, and what error messages call them."""

from dataclasses import dataclass

from clary.domain.arns import sagemaker_arn
from clary.domain.faults import Fault, validation


@dataclass(frozen=True, slots=True)
class Kind:
    """`name` stands in the ARN; `noun` in messages."""

    name: str
    noun: str

    def arn(self, region: str, account: str, name: str) -> str:
        return sagemaker_arn(region, account, self.name, name)

    def absent(self, arn: str) -> Fault:
        return validation(f'Could not find {self.noun} "{arn}".')

    def duplicate(self, arn: str) -> Fault:
        return validation(f'Cannot create already existing {self.noun} "{arn}".')


MODEL = Kind("model", "model")
ENDPOINT_CONFIG = Kind("endpoint-config", "endpoint configuration")
ENDPOINT = Kind("endpoint", "endpoint")

KINDS = (MODEL, ENDPOINT_CONFIG, ENDPOINT)


def kind_named(name: str) -> Kind | None:
    return next((kind for kind in KINDS if kind.name == name), None)
