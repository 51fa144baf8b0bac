"""Who holds what, and who should fetch from whom: announcements, sessions, parents."""
