"""Scripts that train and judge the tiny base and the tiny CLIP; never part of set-up or tests."""
