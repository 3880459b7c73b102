"""What a gateway must not carry along."""

import subprocess
import sys


def test_Z04_the_gateway_imports_neither_botocore_nor_a_database() -> None:
    program = "import sys, clary.gateway.app; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"botocore", "boto3", "sqlalchemy", "sqlite3", "alembic"}.isdisjoint(loaded)
