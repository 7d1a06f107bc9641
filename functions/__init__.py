"""The three functions. No function imports another one."""
