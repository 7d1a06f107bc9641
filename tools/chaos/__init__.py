"""Tests of event delivery under faults: random kills of processes (`kills`), an unavailable store (`outage`)."""
