"""Whether a student can learn: three steps of training on throw-away copies, looked at closely."""
