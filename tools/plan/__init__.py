"""
How much the pipeline can take, and how to set it up for what it has to.

    measuring      a short sweep over the running pipeline: what was observed at each number of callers
    fitting        curves through it: the time of a batch, throughput over concurrency
    ranker         what follows for an instance that ranks in batches
    recommending   settings for a goal, and the predicted ceiling

All but `measuring` is computation on plain data.
"""
