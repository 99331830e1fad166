"""Recipes to rows of tokens: exact order, loader, shards."""
