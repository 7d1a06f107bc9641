"""What crosses the wire: the three doors' bodies, their faults, the problem documents that answer them."""
