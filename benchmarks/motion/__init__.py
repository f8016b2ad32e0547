"""Labels carried along the motion of the picture: how good they are, live too, and what they cost."""
