"""The options of the program: from one typed model come flags, variables, TOML keys, help and the reference page."""
