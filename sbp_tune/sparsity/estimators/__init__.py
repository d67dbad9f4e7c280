"""One estimator a file, named as in the config; its class is the file's name in CamelCase."""
