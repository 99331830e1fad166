"""The demo: the whole loop on corpora that installed packages hold."""
