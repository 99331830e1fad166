"""The dashboard: a local page that moves target, weights and limits by slider and redraws what follows from them."""
