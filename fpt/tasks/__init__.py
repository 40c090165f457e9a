"""Tasks that ``--dataset`` names: `fpt.tasks.base`, what tasks of a modality share, and one file a dataset."""
