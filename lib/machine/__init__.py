"""What touches the machine: files that are written whole, versions and git state, progress reports."""
