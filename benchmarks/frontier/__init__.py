"""Does sparse backpropagation pay? Every estimator against dense training of the same cost."""
