"""Who may call: bearer tokens from a file, or signed tokens of an issuer. Switched off only by saying so."""
