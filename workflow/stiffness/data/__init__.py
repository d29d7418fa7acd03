"""The data room: raw data to arrays and the evaluation subset."""
