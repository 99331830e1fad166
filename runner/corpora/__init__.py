"""Readers of corpora, the tokenizer, and the memory-mapped token shards that training and evaluation read."""
