"""Where events are read from: bulk export, search, recordings; all put what they read into the same pipeline."""
