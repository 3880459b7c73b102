"""GetCallerIdentity: what the signature proved, nothing looked up."""

from clary.wire.operations import Call, operation
from clary.wire.shapes import sts as shapes


class Identity:
    @operation("GetCallerIdentity")
    def get_caller_identity(
        self, call: Call, params: shapes.GetCallerIdentityRequest
    ) -> shapes.GetCallerIdentityResponse:
        principal = call.principal
        return {"UserId": principal.user_id, "Account": principal.account, "Arn": principal.arn}
