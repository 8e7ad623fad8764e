"""What touches the machine: files that are written whole, versions, git state, whose code it is, progress reports."""
