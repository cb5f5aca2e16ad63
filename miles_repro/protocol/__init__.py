"""The paper's protocol (sec. IV-B) as runs: what belongs to it, what is missing, what it costs."""
