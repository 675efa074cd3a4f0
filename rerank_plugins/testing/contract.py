"""The contract of a backend as a test suite: subclass it, set `spec` to your backend, run pytest.

```python
# tests/test_acme.py
from rerank_plugins.testing.contract import BackendContract


class TestAcme(BackendContract):
    spec = "acme"
```

A backend that sends requests inherits `HostedContract` instead, with a `VendorServer` that has the vendor's format:

```python
from rerank_plugins.testing.contract import HostedContract
from rerank_plugins.testing.server import VendorServer


class AcmeServer(VendorServer):
    paths = ("/v1/rerank",)


class TestAcme(HostedContract):
    spec = "acme:acme-1"
    vendor = AcmeServer
```

Every test runs with `rerank` and with `arerank`. If your backend cannot pass a test, override it and mark it with
`@pytest.mark.xfail(reason="…")`; an override without a reason fails the suite. For readable failures, put
`pytest.register_assert_rewrite("rerank_plugins.testing")` at the top of your `conftest.py`.
"""

from .hosted_laws import FAILURES, HostedContract
from .laws import BackendContract

__all__ = ["FAILURES", "BackendContract", "HostedContract"]
