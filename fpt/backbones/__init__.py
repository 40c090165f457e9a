"""Backbones that ``--backbone`` names: `fpt.backbones.base`, one file a family, and how they are loaded."""
