"""Requests processed together: the decision core, and what runs its decisions."""
