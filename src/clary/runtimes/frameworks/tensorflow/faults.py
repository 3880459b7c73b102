"""What TensorFlow Serving refuses, with the HTTP status it gives.

ServingFault             carries its status; its text becomes `{"error": …}`
├── InvalidArgument          400  not a request this signature takes
├── NotFound                 404  no such model or version
├── Unimplemented            501  a type of tensor that JSON has no form for
└── RunFailed                by the code TensorFlow gave
"""

_STATUS_OF_CODE = {
    3: 400,  # invalid argument
    4: 504,  # deadline exceeded
    5: 404,  # not found
    6: 409,  # already exists
    7: 403,  # permission denied
    8: 429,  # resource exhausted
    9: 400,  # failed precondition
    10: 409,  # aborted
    11: 400,  # out of range
    12: 501,  # unimplemented
    14: 503,  # unavailable
    16: 401,  # unauthenticated
}


class TensorFlowError(Exception):
    """The library's code (an `absl::StatusCode`) and its words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ServingFault(Exception):
    status = 500


class InvalidArgument(ServingFault):
    status = 400


class NotFound(ServingFault):
    status = 404


class Unimplemented(ServingFault):
    status = 501


class RunFailed(ServingFault):
    def __init__(self, error: TensorFlowError) -> None:
        super().__init__(str(error))
        self.status = _STATUS_OF_CODE.get(error.code, 500)
