"""Search a corpus with a finished run: vectors of texts, an index on disk, the best documents, hard negatives."""
