"""Corpora of synthetic speech, made on first use by eSpeak NG."""
