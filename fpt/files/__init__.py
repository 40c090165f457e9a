"""The file system: files that are whole or not there, refusals, tables that spreadsheets open, where output may go."""
