"""Constraints: the expressions that set one Parameter from others."""

from __future__ import annotations
