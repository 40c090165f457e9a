"""From a task's raw data to batches: Arrow files (`cache`), samples of a split (`samples`), batches (`batches`)."""
