"""A web page and one `/metrics` for a platform of localkn."""
