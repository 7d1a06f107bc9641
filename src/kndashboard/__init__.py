"""What a platform of localkn does, on a page and as metrics."""
