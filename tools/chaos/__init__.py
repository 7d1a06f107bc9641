"""The pipeline under random kills of processes (`kills`), an unavailable store (`outage`) and a long load (`soak`)."""
