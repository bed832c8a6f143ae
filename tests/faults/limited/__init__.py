"""An app of the workers in the tests of limits: limited tasks, which only they are to know."""
