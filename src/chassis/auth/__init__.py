"""Authentication of callers: bearer tokens from a file, or signed tokens of an issuer. `AUTH=off` switches it off."""
