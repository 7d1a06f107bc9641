"""
A broker for the Brokers and Triggers of the manifests: a process that localkn runs beside the instances.

`cloudevents` and `delivery` decide, `queue` remembers, `broker` does what was decided, `ingress` takes events in.
"""
