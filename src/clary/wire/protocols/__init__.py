"""The AWS protocols, one module each, both directions: requests are parsed, responses serialized.

Importing this package imports none of them: the gateway takes `eventstream` alone, and a protocol brings botocore.
"""

import functools
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from clary.wire.protocols.base import Protocol

PROTOCOLS = {
    "json": "clary.wire.protocols.json:JsonProtocol",
    "rest-json": "clary.wire.protocols.rest_json:RestJsonProtocol",
    "rest-xml": "clary.wire.protocols.rest_xml:RestXmlProtocol",
    "smithy-rpc-v2-cbor": "clary.wire.protocols.cbor:CborProtocol",
    "query": "clary.wire.protocols.query:QueryProtocol",
}


@functools.cache
def load(name: str) -> "Protocol":
    """The protocol called `name`, as the service models name it. LookupError for one not spoken here."""
    if name not in PROTOCOLS:
        raise LookupError(f"the protocol {name} is not spoken here")
    module, _, attribute = PROTOCOLS[name].partition(":")
    return cast("Protocol", getattr(import_module(module), attribute)())
