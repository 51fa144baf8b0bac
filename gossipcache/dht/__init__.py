"""Membership (SWIM), the consistent-hash ring, and the replicated task records."""
