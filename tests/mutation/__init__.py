"""How much of the core the tests notice: mutants of it, and what catches them."""
