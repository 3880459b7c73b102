"""Roles: the default execution role, which every caller of this server has assumed."""

import json
from datetime import datetime
from urllib.parse import quote

from clary.domain.faults import Fault
from clary.domain.principals import DEFAULT_ROLE_NAME, role_arn, role_id
from clary.wire.operations import Call, operation
from clary.wire.shapes import iam as shapes

_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


class Roles:
    def __init__(self, created_at: datetime) -> None:
        self._created_at = created_at

    @operation("GetRole")
    def get_role(self, call: Call, params: shapes.GetRoleRequest) -> shapes.GetRoleResponse:
        name = params["RoleName"]
        if name != DEFAULT_ROLE_NAME:
            raise Fault("NoSuchEntity", f"The role with name {name} cannot be found.", 404)
        return {
            "Role": {
                "Path": "/",
                "RoleName": name,
                "RoleId": role_id(name),
                "Arn": role_arn(call.account, name),
                "CreateDate": self._created_at,
                # IAM gives policies percent-encoded (RFC 3986); SDKs decode them.
                "AssumeRolePolicyDocument": quote(json.dumps(_TRUST), safe=""),
                "Description": "The role this server's instances run with.",
                "MaxSessionDuration": 3600,
            }
        }
