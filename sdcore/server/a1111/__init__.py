"""AUTOMATIC1111's API, /sdapi/v1: its requests in our words, and our answers in its."""
