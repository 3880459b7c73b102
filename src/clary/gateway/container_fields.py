"""The header lines that a container gets: of the caller's headers only these, whoever sends them."""


def field_lines(
    content_type: bytes | None, accept: bytes | None, attributes: bytes | None, length: int
) -> bytes:
    """With the empty line that ends a head."""
    fields = b"content-length: %d\r\n" % length
    if content_type is not None:
        fields += b"content-type: %b\r\n" % content_type
    if accept is not None:
        fields += b"accept: %b\r\n" % accept
    if attributes is not None:
        fields += b"x-amzn-sagemaker-custom-attributes: %b\r\n" % attributes
    return fields + b"\r\n"
