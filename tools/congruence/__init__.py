"""Compare how Knative and the local platform carry out the same changes of a Service."""
