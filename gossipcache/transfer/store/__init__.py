"""The local store: which tasks this node has, and their bytes on its disk."""
