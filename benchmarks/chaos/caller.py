"""A caller who asks until he is answered: what is acknowledged to him must come true, whatever dies meanwhile."""

from collections.abc import Callable

from botocore.exceptions import BotoCoreError, ClientError

from benchmarks.chaos.experiment import hold, wait_until
from benchmarks.platform import Platform


class Caller:
    """Creates and deletes endpoints through failures. Raises `Broken` where something does not come true in time."""

    def __init__(self, platform: Platform, patience_s: float) -> None:
        self._sagemaker = platform.client("sagemaker")
        self._patience_s = patience_s

    def create(self, name: str, config: str) -> None:
        def ask() -> None:
            self._sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)

        self._insist(ask, "Cannot create already existing")

    def delete(self, name: str) -> None:
        def ask() -> None:
            self._sagemaker.delete_endpoint(EndpointName=name)

        self._insist(ask, "Could not find", "in-progress")

    def status(self, name: str) -> str:
        """As Describe tells it, or `gone`; empty while nobody answers."""
        try:
            return str(self._sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"])
        except ClientError as error:
            return "gone" if error.response["Error"]["Code"] == "ValidationException" else ""
        except BotoCoreError:
            return ""

    def wait(self, name: str, status: str) -> None:
        wait_until(lambda: self.status(name) == status, f"{name} {status}", self._patience_s)

    def _insist(self, ask: Callable[[], None], *done: str) -> None:
        """Asks until it is acknowledged. A repetition may be told that the first one, never answered, had an effect."""
        tries = 0

        def is_acknowledged() -> bool:
            nonlocal tries
            tries += 1
            try:
                ask()
            except ClientError as error:
                if tries > 1 and any(text in str(error) for text in done):
                    return True
                hold(error.response["ResponseMetadata"]["HTTPStatusCode"] == 503, f"refused: {error}")
                return False
            except BotoCoreError:
                return False
            return True

        wait_until(is_acknowledged, "acknowledged", self._patience_s)
