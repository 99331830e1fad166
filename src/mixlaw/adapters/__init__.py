"""Adapters: tables of any shape, evaluation results and experiment exports become a sheet in the contract's columns."""
