"""
Kubernetes objects out of YAML: built as kustomize does, checked as Knative's webhooks do, changed as kn does.

`manifests.load` reads them, `validation.faults` checks one, `templates` and `configuration` say what a Service's
template means, `edits` changes it. The package runs nothing, and imports no other package of the project.
"""
