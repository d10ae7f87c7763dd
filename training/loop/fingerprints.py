"""Fingerprints: two things of one fingerprint are the same, whatever they are called and wherever they lie."""

import hashlib
import json
from typing import Any


def digest_of(settings: dict[str, Any]) -> str:
    """Of whatever JSON holds, its keys in any order: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
