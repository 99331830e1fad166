"""The fitted response of every task."""
