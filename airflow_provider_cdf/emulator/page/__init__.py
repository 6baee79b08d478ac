"""The page that shows executions and their task graphs."""
