"""DataCaptureConfig: which requests and answers are written down, where, and what of it Describe shows."""

from clary.domain.faults import Fault, validation
from clary.domain.routes import Capture
from clary.wire.shapes import sagemaker as shapes


def is_enabled(config: shapes.DataCaptureConfig) -> bool:
    """Left out, EnableCapture means yes."""
    return config.get("EnableCapture", True)


def read_capture(config: shapes.DataCaptureConfig) -> Capture:
    """What a route needs to know of it. Raises ValidationException."""
    modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
    header = config.get("CaptureContentTypeHeader", {})
    csv, json = header.get("CsvContentTypes", []), header.get("JsonContentTypes", [])
    if "CaptureContentTypeHeader" in config and not (csv or json):
        raise _invalid("CaptureContentTypeHeader needs CsvContentTypes or JsonContentTypes.")
    if twice := sorted({name.lower() for name in csv} & {name.lower() for name in json}):
        raise _invalid(f"a content type is either CSV or JSON, and {', '.join(twice)} is named as both.")
    return Capture(
        destination=_s3_uri(config["DestinationS3Uri"]),
        percent=float(config["InitialSamplingPercentage"]),
        takes_input=bool(modes & {"Input", "InputAndOutput"}),
        takes_output=bool(modes & {"Output", "InputAndOutput"}),
        csv_types=tuple(csv),
        json_types=tuple(json),
        kms_key_id=config.get("KmsKeyId", ""),
    )


def summary(capture: Capture, *, is_on: bool) -> shapes.DataCaptureConfigSummary:
    return {
        "EnableCapture": is_on,
        "CaptureStatus": "Started" if is_on else "Stopped",
        "CurrentSamplingPercentage": int(capture.percent),
        "DestinationS3Uri": capture.destination,
        "KmsKeyId": capture.kms_key_id,
    }


def _s3_uri(uri: str) -> str:
    """The pattern of the model lets https through and a bucket of one letter: what is taken is `s3://BUCKET[/PREFIX]`."""
    bucket = uri.removeprefix("s3://").partition("/")[0]
    if not uri.startswith("s3://") or not bucket:
        raise _invalid(f"DestinationS3Uri {uri} must be s3://BUCKET or s3://BUCKET/PREFIX.")
    return uri


def _invalid(why: str) -> Fault:
    return validation(f"Invalid DataCaptureConfig: {why}")
