"""Text becomes facts. Each reader takes any model's words, lay ones included, and says None where it finds nothing."""
