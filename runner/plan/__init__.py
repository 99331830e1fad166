"""Recipes to segments to a price."""
