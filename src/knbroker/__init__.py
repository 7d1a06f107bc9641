"""
A broker for the Brokers and Triggers of the manifests: a process that localkn runs beside the instances.

`delivery` decides, `queue` stores, `broker` carries out the decisions, `ingress` receives events.
"""
