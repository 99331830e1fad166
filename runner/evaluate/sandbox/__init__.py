"""Programs written by models, run where they can do no harm."""
