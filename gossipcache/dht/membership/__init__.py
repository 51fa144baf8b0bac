"""Who is alive: SWIM with Lifeguard, its rumours and its push/pull."""
