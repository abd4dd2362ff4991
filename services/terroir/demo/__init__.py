"""The main job end to end: two folders of pictures become two styles, and covers in them."""
