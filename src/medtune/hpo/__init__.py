"""Finding good settings: sweeps over a recipe, and the rules of others held against what a sweep measured."""
