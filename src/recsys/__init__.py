"""What the functions share: contracts, serving shell, stores, telemetry. Imported, never run."""
