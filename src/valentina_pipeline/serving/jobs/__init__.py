"""Jobs: queue, dispatcher and worker process."""
