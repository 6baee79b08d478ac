"""What workflows do, and what CDF accepts. Nothing here knows HTTP, nor the rooms that do."""
