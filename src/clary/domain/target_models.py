"""Names of models behind a multi-model endpoint: a `TargetModel` is a key below the endpoint's prefix. Pure.

It comes from a caller and ends in an object's key, and as a part of a path on an instance: a name that could mean
anything outside of the prefix is no name.
"""

LONGEST = 1024


def read(header: bytes) -> str:
    """The name as the caller wrote it: SDKs send what is not ASCII as UTF-8, as keys of objects are. What is no UTF-8
    names nothing that there is."""
    return header.decode("utf-8", "replace")


def why_unfit(target: str) -> str:
    """Why this cannot name a model; empty when it can."""
    if target.startswith("/"):
        return "it begins with a slash; it is relative to the endpoint's ModelDataUrl"
    if not target or target.endswith("/"):
        return "it names no object"
    if any(part in (".", "..") for part in target.split("/")):
        return "it has a part that is . or .."
    if not target.isprintable():
        return "it has characters that cannot be printed"
    return ""
