"""Who may call this gateway: users' keys, and what users and roles may do. Read from a file that control writes.

Without control the last file counts. One that cannot be read leaves nobody but the root key: rights that are not
known are not given.
"""

from datetime import UTC, datetime
from logging import getLogger
from pathlib import Path

import msgspec

from clary.domain import target_models
from clary.domain.arns import sagemaker_arn
from clary.domain.policies import Request
from clary.domain.rights import Rights, caller_context, knows
from clary.links import identities
from clary.wire.heads import Head
from clary.wire.sigv4 import KeyRing, Signer, Verifier

log = getLogger(__name__)

_TARGET_MODEL = b"x-amzn-sagemaker-target-model"
_TARGET_CONTAINER = b"x-amzn-sagemaker-target-container-hostname"


class Callers:
    """The identities in force."""

    def __init__(self, keys_dir: Path, keyring: KeyRing, verifier: Verifier) -> None:
        self._keys_dir = keys_dir
        self._keyring = keyring
        self._verifier = verifier
        self.rights = Rights()

    def load(self) -> None:
        """Takes over what control has written last."""
        try:
            found = identities.read(self._keys_dir)
        except (OSError, msgspec.DecodeError) as error:
            log.error("users and roles are unreadable, only the root key counts", extra={"error": str(error)})
            found = identities.Identities()
        self._keyring.use_keys((key.access_key_id, key.secret_access_key, key.user_arn) for key in found.keys)
        self._verifier.forget()
        self.rights = Rights.from_accesses(found.accesses)

    def authorise_invocation(self, signer: Signer, head: Head, streams: bool, endpoint: str) -> None:
        """Raises the fault that says the caller may not invoke the endpoint."""
        action = "sagemaker:InvokeEndpointWithResponseStream" if streams else "sagemaker:InvokeEndpoint"
        principal = signer.principal
        arn = sagemaker_arn(signer.region, principal.account, "endpoint", endpoint)
        context = caller_context(principal, signer.region, datetime.now(UTC))
        if target := target_models.read(head.headers.get(_TARGET_MODEL, b"")):
            context["sagemaker:targetmodel"] = (target,)
        if container := head.text(_TARGET_CONTAINER):
            context["sagemaker:targetcontainerhostname"] = (container,)
        self.rights.check(principal, Request(action, arn, context, knows))
