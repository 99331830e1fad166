"""Audit: how held-out runs were predicted, against baselines that are hard to beat."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Audit:
    """Held-out figures of a fit."""
