"""The worker: `driftline worker`, or `faust -A connectors.kafka.worker worker`.

The environment variable DRIFTLINE_SETTINGS names the settings file; without one, all settings
have their defaults. Importing this connects to nothing.
"""

from __future__ import annotations

from connectors.kafka.live_app import live_app
from connectors.kafka.live_settings import load_live, settings_path

app = live_app(*load_live(settings_path()))
