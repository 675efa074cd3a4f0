"""Vendors and servers that differ only in data, as rows.

To add one, write a row in `hosted.py`, `clouds.py` or `servers.py`, and the exchange that the vendor documents in
`tests/vendors/exchanges/`.
"""

from .clouds import CLOUDS
from .hosted import HOSTED
from .row import Format, Preset, Setting
from .servers import SERVERS

__all__ = ["PRESETS", "Format", "Preset", "Setting"]

PRESETS = {preset.name: preset for preset in (*HOSTED, *CLOUDS, *SERVERS)}
"""Every preset by name."""
