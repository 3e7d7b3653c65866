"""The options of the program: one typed model from which flags, variables, TOML keys, help and the reference page are made."""
