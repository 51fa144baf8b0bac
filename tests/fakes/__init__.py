"""Small verified stand-ins for the seams."""
