"""A data set folder in the forms that other tools read: LLaMA-Factory, WebDataset, Parquet as on the Hugging Face hub."""
