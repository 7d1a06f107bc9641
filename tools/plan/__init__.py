"""
Capacity planning: measures the capacity of the running pipeline and recommends settings for a target load.

    sweep          loads the running pipeline with rising numbers of callers
    observations   the measurements of a sweep
    curves         fits the time of a batch, and throughput over concurrency
    ranker         a queueing model of an instance that ranks in batches
    planner        settings for a goal, and the predicted ceiling

Only `sweep` does I/O; the other modules compute on plain data.
"""
