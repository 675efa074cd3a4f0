"""The server with requests that schemathesis generates from its OpenAPI description."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from rerank_plugins.serving.app import application
from rerank_plugins.serving.limits import Limits

KEY = "fuzz-key-0123456789"
APP = application("lexical", api_key=KEY, limits=Limits(max_documents=20, max_body_mb=0.05))
CONFIG = schemathesis.Config.from_dict(
    {
        "checks": {"negative_data_rejection": {"expected-statuses": [400, 401, 404, 413, 415, 422]}},
    }
)
schema = schemathesis.openapi.from_asgi("/openapi.json", APP, config=CONFIG)


@schema.auth()
class Key:
    """Send the key, so that schemathesis also tries requests without one and with a wrong one."""

    def get(self, case, context):
        return KEY

    def set(self, case, data, context):
        case.headers["authorization"] = f"Bearer {data}"


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_server_conforms_to_its_openapi_description(case):
    """No status 500; only documented statuses and bodies. Valid requests are accepted, invalid ones refused."""
    case.call_and_validate()
