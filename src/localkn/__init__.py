"""Runs Knative manifests on this machine: a stand-in for development and CI, not a production platform."""
