"""Names of models behind a multi-model endpoint: a `TargetModel` is a key below the endpoint's prefix. Pure.

It comes from a caller and ends in an object's key, and as a part of a path on an instance: a name that could mean
anything outside of the prefix is no name.
"""

LONGEST = 1024


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
