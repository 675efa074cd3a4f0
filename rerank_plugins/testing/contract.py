"""The contract as a test suite: subclass it, name your backend, run pytest.

```python
# tests/test_acme.py
from rerank_plugins.testing.contract import BackendContract


class TestAcme(BackendContract):
    spec = "acme"
```

A backend that sends requests inherits `HostedContract` instead and brings a `VendorServer` that speaks the vendor's
format:

```python
class TestAcme(HostedContract):
    spec = "acme:acme-1"
    vendor = AcmeServer
```

Every law runs through the sync and the async face. A law that your backend cannot keep is overridden under
`@pytest.mark.xfail(reason="…")`; overriding it without a reason fails the suite. For readable failures put
`pytest.register_assert_rewrite("rerank_plugins.testing")` at the top of your `conftest.py`.
"""

from .hosted_laws import FAILURES, HostedContract
from .laws import BackendContract

__all__ = ["FAILURES", "BackendContract", "HostedContract"]
