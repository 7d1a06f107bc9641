"""
The same work done the usual way, to measure against: FastAPI, in one process and in three.

Same store, same features, same model, same answers; what differs is the serving around them.
"""
