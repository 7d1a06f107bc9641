"""Verbs of run.sh that need more than bash. They may use every part; no part uses them."""
