"""The model families that a sweep file can name. Pure values; no Keras."""

from __future__ import annotations

from collections.abc import Mapping

from .family import Family
from .knobs import CNN
from .transfer_knobs import TRANSFER

FAMILIES: Mapping[str, Family] = {family.name: family for family in (CNN, TRANSFER)}
