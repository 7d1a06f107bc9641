"""The public door: user id in, recommendations out, by way of the other two functions."""
