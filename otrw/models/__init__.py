"""Nets that map an image to (embedding, logits)."""
