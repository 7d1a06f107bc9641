"""
Kubernetes objects out of YAML: built as kustomize does, checked as Knative's webhooks do, changed as kn does.

`manifests.load` reads them, `validation.faults` checks one, `templates` and `configuration` say what a Service's
template means, `edits` changes it. Nothing here runs anything, and nothing of the project is imported.
"""
