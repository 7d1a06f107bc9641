"""Events under bad conditions: processes killed at random (`kills`), the store away for a while (`outage`)."""
