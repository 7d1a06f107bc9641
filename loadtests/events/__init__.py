"""Events under bad conditions: processes killed at random (`chaos`), the store away for a while (`outage`)."""
